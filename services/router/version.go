package router

import (
	"bytes"
	"strconv"
	"strings"
	"time"

	"github.com/dionysia-dev/dionysia/services/stream"
)

// version orders the manifests of one path. number, the last public media
// sequence number, never goes down over the life of a stream; run breaks the
// tie between a manifest before and after a run that has listed nothing yet.
type version struct {
	number uint64 // 0: unknown, or a manifest without numbers
	run    stream.RunID
	at     time.Time // a DASH manifest's publishTime, when number is unknown
}

// older reports whether v must not be served after w.
func (v version) older(w version) bool {
	switch {
	case v.number != 0 && w.number != 0 && v.number != w.number:
		return v.number < w.number
	case v.run.Epoch != w.run.Epoch:
		return v.run.Epoch < w.run.Epoch
	case v.run.Run != w.run.Run:
		return v.run.Run < w.run.Run
	default:
		return !v.at.IsZero() && v.at.Before(w.at)
	}
}

// versionOf reads the version that the origin gave, <epoch>.<run>.<number>; an
// origin that gave none is read from what it published.
func versionOf(header string, body []byte) version {
	parts := strings.Split(header, ".")
	if len(parts) == 3 {
		epoch, err1 := strconv.ParseUint(parts[0], 10, 64)
		run, err2 := strconv.ParseUint(parts[1], 10, 32)
		number, err3 := strconv.ParseUint(parts[2], 10, 64)
		if err1 == nil && err2 == nil && err3 == nil {
			return version{number: number, run: stream.RunID{Epoch: epoch, Run: uint32(run)}}
		}
	}
	if bytes.HasPrefix(body, []byte("#EXTM3U")) {
		return playlistVersion(body)
	}
	at, err := time.Parse(time.RFC3339Nano, attribute(body, "publishTime"))
	if err != nil {
		return version{}
	}
	return version{at: at}
}

// playlistVersion counts a media playlist's segments; a master playlist has
// none and gets the zero version.
func playlistVersion(body []byte) version {
	var v version
	var first, count uint64
	for line := range bytes.Lines(body) {
		line = bytes.TrimSpace(line)
		switch {
		case bytes.HasPrefix(line, []byte("#EXT-X-MEDIA-SEQUENCE:")):
			first, _ = strconv.ParseUint(string(line[len("#EXT-X-MEDIA-SEQUENCE:"):]), 10, 64)
		case bytes.HasPrefix(line, []byte("#EXTINF:")):
			count++
		case len(line) > 0 && line[0] != '#':
			if _, rest, ok := bytes.Cut(line, []byte("seg/")); ok {
				run, _, _ := bytes.Cut(rest, []byte("/"))
				if id, err := stream.ParseRunID(string(run)); err == nil {
					v.run = id
				}
			}
		}
	}
	if count > 0 {
		v.number = first + count - 1
	}
	return v
}

// attribute returns the first value of an XML attribute, or "".
func attribute(body []byte, name string) string {
	_, rest, ok := bytes.Cut(body, []byte(" "+name+`="`))
	if !ok {
		return ""
	}
	value, _, _ := bytes.Cut(rest, []byte(`"`))
	return string(value)
}

// isEnded reports whether a manifest says that nothing will follow.
func isEnded(k kind, body []byte) bool {
	if k == kindHLS {
		return bytes.Contains(body, []byte("\n#EXT-X-ENDLIST"))
	}
	return attribute(body, "type") == "static"
}

// isManifest reports whether body can be a whole manifest of kind k.
func isManifest(k kind, body []byte) bool {
	if k == kindHLS {
		return bytes.HasPrefix(body, []byte("#EXTM3U"))
	}
	return bytes.Contains(body, []byte("<MPD")) && bytes.Contains(body, []byte("</MPD>"))
}
