package gpac

import (
	"errors"
	"strings"
	"testing"
)

func TestTestEncode(t *testing.T) {
	const uuid = "gpu-0f0e0d0c-1111-2222-3333-445566778899"
	for _, c := range []struct {
		name string
		in   TestEncode
		args string // "" for an error
		env  string
	}{
		{"x264", TestEncode{Codec: "h264", Width: 64, Height: 48, Frames: 2, Sessions: 1},
			"-p=0 -logs=all@warning:ncl -i in.yuv:size=64x48:spfmt=yuv420:fps=30:FID=S " +
				"ffenc:c=libx264:b=1000000:fintra=2:preset=veryfast:tune=zerolatency:g=60:sc_threshold=0:SID=S:FID=E01 -o out0.mp4:SID=E01", ""},
		{"two sessions of NVENC", TestEncode{Codec: "hevc", GPU: uuid, Width: 64, Height: 48, Frames: 2, Sessions: 2},
			"-p=0 -logs=all@warning:ncl -i in.yuv:size=64x48:spfmt=yuv420:fps=30:FID=S " +
				"ffenc:c=hevc_nvenc:b=1000000:fintra=2:preset=p3:tune=ll:g=60:forced-idr=1:gpu=0:SID=S:FID=E01 " +
				"ffenc:c=hevc_nvenc:b=1000000:fintra=2:preset=p3:tune=ll:g=60:forced-idr=1:gpu=0:SID=S:FID=E02 " +
				"-o out0.mp4:SID=E01 -o out1.mp4:SID=E02", "CUDA_VISIBLE_DEVICES=GPU-0f0e0d0c-1111-2222-3333-445566778899"},
		{"HEVC on the CPU", TestEncode{Codec: "hevc", Width: 64, Height: 48, Frames: 2, Sessions: 1}, "", ""},
		{"no such codec", TestEncode{Codec: "vp9", GPU: uuid, Width: 64, Height: 48, Frames: 2, Sessions: 1}, "", ""},
		{"not a UUID", TestEncode{Codec: "h264", GPU: "gpu-0:all", Width: 64, Height: 48, Frames: 2, Sessions: 1}, "", ""},
		{"odd width", TestEncode{Codec: "h264", Width: 63, Height: 48, Frames: 2, Sessions: 1}, "", ""},
		{"no session", TestEncode{Codec: "h264", Width: 64, Height: 48, Frames: 2}, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			cmd, err := c.in.Command()
			if c.args == "" {
				if !errors.Is(err, ErrSpec) {
					t.Fatalf("got %v", err)
				}
				return
			}
			if got := strings.Join(cmd.Args, " "); err != nil || got != c.args {
				t.Fatalf("got %v\n%s\nwant\n%s", err, got, c.args)
			}
			if n := len(cmd.Files["in.yuv"]); n != 64*48*3/2*2 {
				t.Errorf("the picture has %d bytes", n)
			}
			if got := strings.Join(cmd.Env[2:], " "); got != c.env {
				t.Errorf("environment %q, want %q", got, c.env)
			}
		})
	}
}
