package gpac

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

// What only a GPU makes is refused on the CPU, by name.
func TestEncodersAreRefused(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Spec)
		want   string // "": it is built
	}{
		"hevc on the CPU":  {func(s *Spec) { s.Ladder.Video[1].Codec = "hevc" }, "360p: hevc is encoded by GPUs alone"},
		"av1 on the CPU":   {func(s *Spec) { s.Ladder.Video[0].Codec = "av1" }, "720p: av1 is encoded by GPUs alone"},
		"hevc on a GPU":    {func(s *Spec) { s.GPU = gpu; s.Ladder.Video[1].Codec = "hevc" }, ""},
		"vp9 on a GPU":     {func(s *Spec) { s.GPU = gpu; s.Ladder.Video[1].Codec = "vp9" }, `360p: codec "vp9"`},
		"capitals":         {func(s *Spec) { s.GPU = strings.ToUpper(gpu) }, "not gpu- and a UUID"},
		"two cards":        {func(s *Spec) { s.GPU = gpu + "," + gpu }, "not gpu- and a UUID"},
		"an index":         {func(s *Spec) { s.GPU = "0" }, "not gpu- and a UUID"},
		"another variable": {func(s *Spec) { s.GPU = gpu + "\nLD_PRELOAD=x" }, "not gpu- and a UUID"},
	} {
		s := spec()
		s.Version = versions()["2.x"]
		c.change(&s)
		cmd, err := Build(s)
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case c.want != "" && (!errors.Is(err, ErrSpec) || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: %v, %v; want %q", name, cmd.Args, err, c.want)
		}
	}
}

// A run sees its own card alone, and a run on the CPU none by name.
func TestEnv(t *testing.T) {
	if got := Env(gpu); !slices.Contains(got, "CUDA_VISIBLE_DEVICES=GPU-8a9bcdef-0123-4567-89ab-cdef01234567") {
		t.Error(got)
	}
	for _, other := range []string{"", "GPU-8a9bcdef-0123-4567-89ab-cdef01234567", gpu + "0"} {
		for _, v := range Env(other) {
			if strings.HasPrefix(v, "CUDA") {
				t.Errorf("%q: %s", other, v)
			}
		}
	}
}
