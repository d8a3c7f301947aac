package gpac

import (
	"fmt"
	"regexp"
	"strings"
)

// TestEncode is an encode of a made picture by one encoder: what proves it, and
// what its speed is measured with.
type TestEncode struct {
	// Codec is h264, hevc or av1.
	Codec string
	// GPU is the UUID of the card whose NVENC encodes, GPU-… or gpu-…; "" is x264
	// on the CPU, which has only h264.
	GPU string
	// Width and Height are even. NVENC takes nothing smaller than 145x49.
	Width, Height int
	Frames        int
	// Sessions is how many encoders the picture goes to at once, each with an
	// output of its own.
	Sessions int
}

// testPreset is NVENC's, and a capacity's unit. Only NVENC has a p3: where GPAC
// takes another encoder instead of a missing NVENC, which 1.0.1 does when filters
// are not linked by name, that encoder refuses it.
const (
	testPreset    = "p3"
	testPresetCPU = "veryfast"
)

var gpuGrammar = regexp.MustCompile(`^(?i:gpu)-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

// TestOutput names the MP4 file that session i, from 0, writes.
func TestOutput(i int) string { return fmt.Sprintf("out%d.mp4", i) }

// Command builds the command line; its error wraps ErrSpec. The picture is among
// its files: width × height × 1.5 bytes for each frame.
//
// CUDA_VISIBLE_DEVICES leaves the process only the one card, so that its index is
// 0 whatever the driver's order is.
func (t TestEncode) Command() (Command, error) {
	if t.Width < 2 || t.Height < 2 || t.Width%2+t.Height%2 != 0 || t.Frames < 1 || t.Sessions < 1 || t.Sessions > 64 {
		return Command{}, fmt.Errorf("%w: %d test encodes of %d frames of %dx%d", ErrSpec, t.Sessions, t.Frames, t.Width, t.Height)
	}
	c := Command{Env: []string{"PATH=/usr/local/bin:/usr/bin:/bin", "LANG=C.UTF-8"},
		Files: map[string]string{"in.yuv": testPicture(t.Width, t.Height, t.Frames)}}
	encoder := "ffenc:c=libx264:b=1000000:fintra=2:preset=" + testPresetCPU + ":tune=zerolatency:g=60:sc_threshold=0"
	switch {
	case t.GPU == "" && t.Codec != "h264":
		return Command{}, fmt.Errorf("%w: the CPU encodes h264, not %q", ErrSpec, t.Codec)
	case t.GPU != "" && t.Codec != "h264" && t.Codec != "hevc" && t.Codec != "av1":
		return Command{}, fmt.Errorf("%w: codec %q", ErrSpec, t.Codec)
	case t.GPU != "" && !gpuGrammar.MatchString(t.GPU):
		return Command{}, fmt.Errorf("%w: %q is no GPU's UUID", ErrSpec, t.GPU)
	case t.GPU != "":
		encoder = "ffenc:c=" + t.Codec + "_nvenc:b=1000000:fintra=2:preset=" + testPreset + ":tune=ll:g=60:forced-idr=1:gpu=0"
		c.Env = append(c.Env, "CUDA_VISIBLE_DEVICES=GPU-"+strings.ToLower(t.GPU[len("GPU-"):]))
	}
	c.Args = []string{"-p=0", "-logs=all@warning:ncl",
		"-i", fmt.Sprintf("in.yuv:size=%dx%d:spfmt=yuv420:fps=30:FID=S", t.Width, t.Height)}
	for i := range t.Sessions {
		c.Args = append(c.Args, encoder+":SID=S:FID="+id("E", i))
	}
	for i := range t.Sessions {
		c.Args = append(c.Args, "-o", TestOutput(i)+":SID="+id("E", i))
	}
	return c, nil
}

// testPicture makes YUV 4:2:0 frames that move everywhere and hold some noise, so
// that they cost what ordinary pictures cost.
func testPicture(width, height, frames int) string {
	b := make([]byte, 0, width*height*3/2*frames)
	seed := uint32(1)
	for f := range frames {
		for y := range height {
			for x := range width {
				seed = seed*1664525 + 1013904223 // Numerical Recipes' generator
				b = append(b, byte((x+3*f)^(y+f))/2+byte(seed>>28))
			}
		}
		for i := range width * height / 2 {
			b = append(b, byte(96+(i/64+f)%64))
		}
	}
	return string(b)
}
