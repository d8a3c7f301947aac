package router

import (
	"errors"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestParsePath(t *testing.T) {
	good := map[string]kind{
		"/live/demo/master.m3u8":                                             kindHLS,
		"/live/demo/720p/index.m3u8":                                         kindHLS,
		"/live/demo/manifest.mpd":                                            kindDASH,
		"/live/demo/seg/e3r1/720p/init.mp4":                                  kindSegment,
		"/live/demo/seg/e3r1/720p/1.m4s":                                     kindSegment,
		"/live/a-b_c/seg/e18446744073709551615r1/a/18446744073709551615.m4s": kindSegment,
	}
	for path, want := range good {
		got, err := parsePath(path)
		if err != nil || got.kind != want || got.path != path || !strings.HasPrefix(path, "/live/"+got.stream+"/") {
			t.Errorf("%s: %+v %v", path, got, err)
		}
	}
	bad := map[string]error{
		"/live/demo/../../etc/passwd":             errPathBad,
		"/live/../etc/passwd":                     errPathBad,
		"/live/demo/seg/../../master.m3u8":        errPathBad,
		"/live/demo/seg/e1r1/720p/../1.m4s":       errPathBad,
		"/live/demo/seg/e1r1/720p/./1.m4s":        errPathBad,
		"/live/demo//etc/passwd":                  errPathBad,
		"/live//etc/passwd":                       errPathBad,
		"/live/demo/%2e%2e/%2e%2e/etc/passwd":     errPathBad,
		"/live/demo/..%2f..%2fetc/passwd":         errPathBad,
		"/live/demo/%252e%252e/etc/passwd":        errPathBad,
		"/live/demo/seg/e1r1/720p/1.m4s%00":       errPathBad,
		"/live/demo/seg/e1r1/720p/1.m4s\x00":      errPathBad,
		"/live/demo\\..\\master.m3u8":             errPathBad,
		"/live/demo/seg/e1r1/720p/..%5c1.m4s":     errPathBad,
		"/live/dämo/master.m3u8":                  errPathBad,
		"/live/demo/seg/e1r1/720p/\uff0e\uff0e/1": errPathBad,
		"/live/DEMO/master.m3u8":                  errPathBad,
		"/live/demo/master.m3u8 ":                 errPathBad,
		"/live/demo/master.m3u8;x":                errPathBad,
		"/live/demo/%6daster.m3u8":                errPathBad,
		"http://evil/live/demo/master.m3u8":       errPathBad,
		"/etc/passwd":                             errPathBad,
		"/live/" + strings.Repeat("a", 300):       errPathTooLong,
		"/live/demo/" + strings.Repeat("a/", 122): errPathUnknown,
		"/live/":                                            errPathUnknown,
		"/live/demo":                                        errPathUnknown,
		"/live/demo/":                                       errPathUnknown,
		"/live/demo/index.m3u8":                             errPathUnknown,
		"/live/demo/master.m3u8/":                           errPathUnknown,
		"/live/demo/720p/master.m3u8":                       errPathUnknown,
		"/live/demo/-720p/index.m3u8":                       errPathUnknown,
		"/live/-demo/master.m3u8":                           errPathUnknown,
		"/live/demo/seg/e1r1/720p/0.m4s":                    errPathUnknown,
		"/live/demo/seg/e1r1/720p/01.m4s":                   errPathUnknown,
		"/live/demo/seg/e1r1/720p/-1.m4s":                   errPathUnknown,
		"/live/demo/seg/e1r1/720p/1.mp4":                    errPathUnknown,
		"/live/demo/seg/e1r1/720p/.m4s":                     errPathBad,
		"/live/demo/seg/e1r1/720p/m4s":                      errPathUnknown,
		"/live/demo/seg/e1r1/720p/":                         errPathUnknown,
		"/live/demo/seg/e01r1/720p/1.m4s":                   errPathUnknown,
		"/live/demo/seg/e1r/720p/1.m4s":                     errPathUnknown,
		"/live/demo/seg/e1/720p/1.m4s":                      errPathUnknown,
		"/live/demo/seg/e1r1/720p/18446744073709551616.m4s": errPathUnknown,
		"/live/demo/seg/e1r1/720p/x/1.m4s":                  errPathUnknown,
		"/live/" + strings.Repeat("a", 64) + "/master.m3u8": errPathUnknown,
	}
	for path, want := range bad {
		if got, err := parsePath(path); !errors.Is(err, want) {
			t.Errorf("%q: %+v %v, want %v", path, got, err, want)
		}
	}
}

// Whatever parsePath takes has one spelling and stays below its stream.
func TestParsePathProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		part := rapid.OneOf(
			rapid.SampledFrom([]string{"", ".", "..", "live", "seg", "demo", "e1r1", "720p", "index.m3u8", "master.m3u8",
				"init.mp4", "1.m4s", "%2e", "\x00", "manifest.mpd"}),
			rapid.StringN(0, 8, -1))
		path := "/live/" + strings.Join(rapid.SliceOfN(part, 0, 7).Draw(t, "parts"), "/")
		got, err := parsePath(path)
		if err != nil {
			return
		}
		if strings.ContainsAny(path, "%\\\x00? #") || strings.Contains(path, "..") || strings.Contains(path, "//") {
			t.Fatalf("accepted %q", path)
		}
		if !isID(got.stream) || !strings.HasPrefix(got.path, "/live/"+got.stream+"/") || got.path != path || got.kind == kindOther {
			t.Fatalf("%q gave %+v", path, got)
		}
	})
}
