package router

import (
	"errors"
	"strconv"
	"strings"

	"github.com/dionysia-dev/dionysia/services/stream"
)

// kind is what a path under /live/ names.
type kind uint8

const (
	kindOther   kind = iota
	kindHLS          // master.m3u8 and {rendition}/index.m3u8
	kindDASH         // manifest.mpd
	kindSegment      // seg/{run}/{rendition}/…: immutable
	kinds
)

func (k kind) String() string { return [kinds]string{"other", "hls", "dash", "segment"}[k] }

// maxPath bounds a path: the longest that the grammar allows is shorter.
const maxPath = 255

const (
	livePrefix   = "/live/"
	masterFile   = "master.m3u8"
	variantFile  = "index.m3u8"
	manifestFile = "manifest.mpd"
	segmentDir   = "seg"
	initFile     = "init.mp4"
	segmentExt   = ".m4s"
)

// Errors of parsePath.
var (
	errPathTooLong = errors.New("path too long")
	errPathBad     = errors.New("malformed path")
	errPathUnknown = errors.New("no such path")
)

// target is a well-formed path under /live/.
type target struct {
	path   string // as asked for; also the cache's key
	stream string
	kind   kind
	run    stream.RunID // of a segment
}

// parsePath takes the path apart, as the client spelt it (escapes and all). It
// accepts exactly one spelling of each object, so that a cache key, the path
// asked of the origin and the path that was checked are the same bytes:
// nothing escaped, no dot segment, no empty element.
func parsePath(raw string) (target, error) {
	if len(raw) > maxPath {
		return target{}, errPathTooLong
	}
	for i := range len(raw) {
		c := raw[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '/' && c != '.' && c != '-' && c != '_' {
			return target{}, errPathBad
		}
	}
	rest, ok := strings.CutPrefix(raw, livePrefix)
	if !ok || strings.Contains(raw, "..") || strings.Contains(raw, "//") || strings.Contains(raw, "/.") {
		return target{}, errPathBad
	}
	id, rest, ok := strings.Cut(rest, "/")
	if !isID(id) || !ok {
		return target{}, errPathUnknown
	}
	t := target{path: raw, stream: id}
	switch rest {
	case masterFile:
		t.kind = kindHLS
		return t, nil
	case manifestFile:
		t.kind = kindDASH
		return t, nil
	}
	first, rest, ok := strings.Cut(rest, "/")
	if !ok {
		return target{}, errPathUnknown
	}
	if first != segmentDir {
		if !isID(first) || rest != variantFile {
			return target{}, errPathUnknown
		}
		t.kind = kindHLS
		return t, nil
	}
	return parseSegment(t, rest)
}

// parseSegment parses {run}/{rendition}/{file}.
func parseSegment(t target, rest string) (target, error) {
	run, rest, _ := strings.Cut(rest, "/")
	rendition, file, ok := strings.Cut(rest, "/")
	if !ok || !isID(rendition) {
		return target{}, errPathUnknown
	}
	var err error
	if t.run, err = stream.ParseRunID(run); err != nil {
		return target{}, errPathUnknown
	}
	if file != initFile {
		number, ok := strings.CutSuffix(file, segmentExt)
		n, err := strconv.ParseUint(number, 10, 64)
		if !ok || err != nil || n == 0 || number[0] == '0' || number[0] == '+' {
			return target{}, errPathUnknown
		}
	}
	t.kind = kindSegment
	return t, nil
}

// isID reports whether s has the grammar of stream ids and rendition names:
// ^[a-z0-9](?:[a-z0-9_-]{0,61}[a-z0-9])?$
func isID(s string) bool {
	if s == "" || len(s) > 63 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		inner := (c == '-' || c == '_') && i > 0 && i < len(s)-1
		if !inner && (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return false
		}
	}
	return true
}
