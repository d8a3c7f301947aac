package router

import (
	"bufio"
	"bytes"
	"encoding/xml"
	"net/url"
	"strconv"
	"strings"
)

// maxListed bounds what is read from one manifest: ten minutes of 1 s segments over
// ten renditions are well under it.
const maxListed = 20_000

// listedBy returns the absolute paths of all that the manifest at path refers
// to, in order; nil when it can't be read.
func listedBy(path string, k kind, body []byte) []string {
	if k == kindDASH {
		return mpdURIs(path, body)
	}
	return playlistURIs(path, body)
}

// playlistURIs returns the absolute paths of all that a playlist refers to: its
// URI lines and URI attributes, in order, without repeats in a row.
func playlistURIs(at string, body []byte) []string {
	base := &url.URL{Path: at}
	var uris []string
	lines := bufio.NewScanner(bytes.NewReader(body))
	for lines.Scan() && len(uris) < maxListed {
		line := strings.TrimSpace(lines.Text())
		if strings.HasPrefix(line, "#") {
			_, rest, ok := strings.Cut(line, `URI="`)
			if !ok {
				continue
			}
			line, _, _ = strings.Cut(rest, `"`)
		}
		ref, err := url.Parse(line)
		if line == "" || err != nil || ref.Host != "" {
			continue
		}
		uris = append(uris, base.ResolveReference(ref).Path)
	}
	return uris
}

// targetDuration reads EXT-X-TARGETDURATION in seconds, 1 when there is none.
func targetDuration(body []byte) float64 {
	var d float64
	if _, rest, ok := bytes.Cut(body, []byte("#EXT-X-TARGETDURATION:")); ok {
		for _, c := range rest {
			if c < '0' || c > '9' {
				break
			}
			d = d*10 + float64(c-'0')
		}
	}
	return max(d, 1)
}

// mpd is what an origin's MPD says of its segments: templates with
// SegmentTimelines by number (ISO/IEC 23009-1, 5.3.9).
type mpd struct {
	Sets []struct {
		Template struct {
			Media string `xml:"media,attr"`
			Init  string `xml:"initialization,attr"`
			First uint64 `xml:"startNumber,attr"`
			Runs  []struct {
				Repeat int `xml:"r,attr"`
			} `xml:"SegmentTimeline>S"`
		} `xml:"SegmentTemplate"`
		Representations []struct {
			ID string `xml:"id,attr"`
		} `xml:"Representation"`
	} `xml:"Period>AdaptationSet"`
}

// mpdURIs returns the absolute paths of all init and media segments of an MPD.
func mpdURIs(at string, body []byte) []string {
	var m mpd
	if err := xml.Unmarshal(body, &m); err != nil {
		return nil
	}
	base := at[:strings.LastIndexByte(at, '/')+1]
	var uris []string
	for _, set := range m.Sets {
		t := set.Template
		for _, rep := range set.Representations {
			if len(uris) >= maxListed {
				return uris
			}
			name := strings.NewReplacer("$RepresentationID$", rep.ID)
			uris = append(uris, base+name.Replace(t.Init))
			before, after, ok := strings.Cut(name.Replace(t.Media), "$Number$")
			n := t.First
			for _, run := range t.Runs {
				if len(uris) >= maxListed {
					return uris
				}
				for i := 0; i <= run.Repeat && ok && len(uris) < maxListed; i++ {
					uris = append(uris, base+before+strconv.FormatUint(n, 10)+after)
					n++
				}
			}
		}
	}
	return uris
}
