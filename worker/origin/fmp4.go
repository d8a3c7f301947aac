package origin

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"

	"github.com/Eyevinn/mp4ff/bits"
	"github.com/Eyevinn/mp4ff/mp4"
	"golang.org/x/sys/unix"

	"github.com/dionysia-dev/dionysia/services/stream"
)

// errIncomplete says that a file is not, or not yet, a whole segment.
var errIncomplete = errors.New("not a whole segment")

// Bounds on what is read of a file; GPAC's inits are below 1 KiB and its moofs
// below 8 KiB for a second of media.
const (
	maxInit = 1 << 20
	maxMoof = 8 << 20
)

// initInfo is what an init segment says of its track.
type initInfo struct {
	track    stream.Track // without Name, rates and bitrates
	trackID  uint32
	trex     *mp4.TrexBox
	editTime int64 // media time of the edit list: presentation time is that much less
	bytes    []byte
}

// segmentInfo is what a media segment holds of one track.
type segmentInfo struct {
	time     uint64 // earliest presentation time
	duration uint64 // of the presentation
	frames   int
	size     int64
}

// openRegular opens a file in a run directory for reading. GPAC owns that
// directory and is not trusted: no link is followed and only regular files count.
func openRegular(path string) (*os.File, int64, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, 0, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s: not a regular file", path)
	}
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, st.Size(), nil
}

func readInit(path string) (initInfo, error) {
	f, size, err := openRegular(path)
	if err != nil {
		return initInfo{}, err
	}
	defer f.Close()
	if size > maxInit {
		return initInfo{}, fmt.Errorf("init of %d bytes: %w", size, errIncomplete)
	}
	b := make([]byte, size)
	if _, err := io.ReadFull(f, b); err != nil {
		return initInfo{}, fmt.Errorf("reading an init: %w", err)
	}
	return parseInit(b)
}

// parseInit parses a whole init segment of one track.
func parseInit(b []byte) (info initInfo, err error) {
	defer recoverAs(&err)
	boxes, err := scanBoxes(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		return initInfo{}, err
	}
	var moov *mp4.MoovBox
	for _, x := range boxes {
		if x.name == "moov" {
			box, err := mp4.DecodeBoxSR(0, bits.NewFixedSliceReader(b[x.start:x.end]))
			if err != nil {
				return initInfo{}, fmt.Errorf("parsing moov: %w", err)
			}
			moov = box.(*mp4.MoovBox)
		}
	}
	if moov == nil || len(moov.Traks) != 1 || moov.Mvex == nil || moov.Mvex.Trex == nil {
		return initInfo{}, fmt.Errorf("init without exactly one fragmented track: %w", errIncomplete)
	}
	trak := moov.Trak
	info = initInfo{bytes: b, trackID: trak.Tkhd.TrackID, trex: moov.Mvex.Trex}
	info.track.Timescale = trak.Mdia.Mdhd.Timescale
	if info.track.Timescale == 0 {
		return initInfo{}, fmt.Errorf("init without a time scale: %w", errIncomplete)
	}
	if trak.Edts != nil && len(trak.Edts.Elst) > 0 {
		for _, e := range trak.Edts.Elst[0].Entries {
			info.editTime = max(info.editTime, e.MediaTime)
		}
	}
	return info, describe(trak.Mdia.Minf.Stbl.Stsd, &info.track)
}

func readSegment(path string, init *initInfo) (segmentInfo, error) {
	f, size, err := openRegular(path)
	if err != nil {
		return segmentInfo{}, err
	}
	defer f.Close()
	return parseSegment(f, size, init)
}

// parseSegment checks that a file of size bytes is a whole segment of init's
// track: its boxes fill the file exactly, and each moof is followed by an mdat
// that holds all its samples. A file that is still being written, was cut off or
// is not fMP4 gives errIncomplete. Sample data is not read.
func parseSegment(r io.ReaderAt, size int64, init *initInfo) (info segmentInfo, err error) {
	defer recoverAs(&err)
	boxes, err := scanBoxes(r, size)
	if err != nil {
		return segmentInfo{}, err
	}
	info.size = size
	first, span := true, presentation{earliest: math.MaxInt64, latest: math.MinInt64}
	for i, x := range boxes {
		if x.name == "moov" {
			return segmentInfo{}, fmt.Errorf("moov in a segment: %w", errIncomplete)
		}
		if x.name != "moof" {
			continue
		}
		if i+1 == len(boxes) || boxes[i+1].name != "mdat" || x.end-x.start > maxMoof {
			return segmentInfo{}, fmt.Errorf("moof without its mdat: %w", errIncomplete)
		}
		b := make([]byte, x.end-x.start)
		if _, err := r.ReadAt(b, x.start); err != nil {
			return segmentInfo{}, fmt.Errorf("reading moof: %w", err)
		}
		box, err := mp4.DecodeBoxSR(0, bits.NewFixedSliceReader(b))
		if err != nil {
			return segmentInfo{}, fmt.Errorf("parsing moof: %w: %w", errIncomplete, err)
		}
		if err := span.add(box.(*mp4.MoofBox), boxes[i+1], init); err != nil {
			return segmentInfo{}, err
		}
		first = false
	}
	info.frames, info.duration = span.frames, span.duration()
	info.time = uint64(max(0, span.earliest-init.editTime))
	if first || info.frames == 0 || info.duration == 0 {
		return segmentInfo{}, fmt.Errorf("no media: %w", errIncomplete)
	}
	return info, nil
}

// presentation gathers when a segment's samples are shown.
type presentation struct {
	earliest, latest int64 // presentation times
	decoded          uint64
	frames           int
	offsets          bool // some sample is not shown at its decode time
}

// duration is the sum of the samples' durations (trun). With composition offsets
// those are only the gaps between decode times, and an encoder with delay may
// begin with a gap of a second: then it is the time from the first to the last
// frame shown and an average frame's.
func (p *presentation) duration() uint64 {
	if !p.offsets || p.frames < 2 {
		return p.decoded
	}
	shown, gaps := p.latest-p.earliest, int64(p.frames-1)
	return uint64(shown + (shown+gaps/2)/gaps)
}

func (p *presentation) add(moof *mp4.MoofBox, mdat boxSpan, init *initInfo) error {
	traf := moof.Traf
	if len(moof.Trafs) != 1 || traf.Tfhd == nil || traf.Tfdt == nil || len(traf.Truns) == 0 {
		return fmt.Errorf("moof without exactly one timed track: %w", errIncomplete)
	}
	if traf.Tfhd.TrackID != init.trackID {
		return fmt.Errorf("track %d where the init has %d: %w", traf.Tfhd.TrackID, init.trackID, errIncomplete)
	}
	var size uint64
	at := int64(traf.Tfdt.BaseMediaDecodeTime())
	for _, trun := range traf.Truns {
		trun.AddSampleDefaultValues(traf.Tfhd, init.trex)
		for _, s := range trun.Samples {
			pts := at + int64(s.CompositionTimeOffset)
			p.earliest, p.latest = min(p.earliest, pts), max(p.latest, pts)
			p.offsets = p.offsets || s.CompositionTimeOffset != 0
			at += int64(s.Dur)
			size += uint64(s.Size)
			p.decoded += uint64(s.Dur)
			p.frames++
		}
	}
	if size > uint64(mdat.end-mdat.start) {
		return fmt.Errorf("samples of %d bytes in an mdat of %d: %w", size, mdat.end-mdat.start, errIncomplete)
	}
	return nil
}

type boxSpan struct {
	name       string
	start, end int64
}

// scanBoxes returns the top-level boxes of a file of size bytes when they fill
// it exactly, errIncomplete otherwise. A box "to the end of the file" (size 0)
// can't be told from a torn one and counts as torn.
func scanBoxes(r io.ReaderAt, size int64) ([]boxSpan, error) {
	var out []boxSpan
	var h [16]byte
	for at := int64(0); at < size; {
		n, err := r.ReadAt(h[:], at)
		if n < 8 {
			return nil, fmt.Errorf("box header at %d of %d: %w", at, size, errors.Join(errIncomplete, eofless(err)))
		}
		length, min := int64(binary.BigEndian.Uint32(h[:])), int64(8)
		if length == 1 && n == 16 {
			length, min = int64(binary.BigEndian.Uint64(h[8:])), 16
		}
		if length < min || length > size-at {
			return nil, fmt.Errorf("box of %d bytes at %d of %d: %w", length, at, size, errIncomplete)
		}
		out = append(out, boxSpan{string(h[4:8]), at, at + length})
		at += length
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("empty file: %w", errIncomplete)
	}
	return out, nil
}

func eofless(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// recoverAs turns a panic of the parser on hostile bytes into errIncomplete.
func recoverAs(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("parser gave up (%v): %w", p, errIncomplete)
	}
}
