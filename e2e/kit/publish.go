package kit

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/dionysia-dev/dionysia/internal/testkit"
)

// Picture says what a publisher sends.
type Picture struct {
	Width, Height int    // 0: 640×360
	Rate          string // frames per second, such as 30000/1001; "" is 25
	Codec         string // h264 (default), h265, or none for no picture
	BFrames       int
	Audio         string  // aac (default), opus, or none
	GOP           float64 // seconds between keyframes; 0 is 2
	Bitrate       string  // "" is 800k
}

func (p Picture) def() Picture {
	if p.Width == 0 {
		p.Width, p.Height = 640, 360
	}
	if p.Rate == "" {
		p.Rate = "25"
	}
	if p.Codec == "" {
		p.Codec = "h264"
	}
	if p.Audio == "" {
		p.Audio = "aac"
	}
	if p.GOP == 0 {
		p.GOP = 2
	}
	if p.Bitrate == "" {
		p.Bitrate = "800k"
	}
	return p
}

// ParseRate reads "25" or "30000/1001".
func ParseRate(s string) float64 {
	num, den, ok := strings.Cut(s, "/")
	n, _ := strconv.ParseFloat(num, 64)
	if !ok {
		return n
	}
	d, _ := strconv.ParseFloat(den, 64)
	if d == 0 {
		return 0
	}
	return n / d
}

// FPS returns the picture's exact rate.
func (p Picture) FPS() float64 { return ParseRate(p.def().Rate) }

// Args returns ffmpeg's arguments that make and encode the picture in real
// time, without the output.
func (p Picture) Args() []string {
	p = p.def()
	args := []string{"-hide_banner", "-loglevel", "warning", "-nostdin"}
	if p.Codec != "none" {
		args = append(args, "-re", "-f", "lavfi", "-i", fmt.Sprintf("testsrc2=size=%dx%d:rate=%s", p.Width, p.Height, p.Rate))
	}
	if p.Audio != "none" {
		args = append(args, "-re", "-f", "lavfi", "-i", "sine=frequency=440:beep_factor=4:sample_rate=48000")
	}
	gop := strconv.Itoa(int(p.FPS()*p.GOP + 0.5))
	switch p.Codec {
	case "h264":
		args = append(args, "-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-b:v", p.Bitrate,
			"-maxrate", p.Bitrate, "-bufsize", p.Bitrate, "-g", gop, "-keyint_min", gop, "-sc_threshold", "0", "-bf", strconv.Itoa(p.BFrames))
		if p.BFrames == 0 {
			args = append(args, "-tune", "zerolatency")
		}
	case "h265":
		args = append(args, "-c:v", "libx265", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-b:v", p.Bitrate,
			"-x265-params", fmt.Sprintf("log-level=error:keyint=%s:min-keyint=%s:scenecut=0:bframes=%d:pools=1:frame-threads=1", gop, gop, p.BFrames))
	case "mpeg2":
		args = append(args, "-c:v", "mpeg2video", "-b:v", p.Bitrate, "-g", gop)
	}
	switch p.Audio {
	case "aac":
		args = append(args, "-c:a", "aac", "-b:a", "96k", "-ac", "2")
	case "opus":
		args = append(args, "-c:a", "libopus", "-b:a", "96k", "-ac", "2")
	}
	return args
}

// RTMPTarget, RTSPTarget and SRTTarget return ffmpeg's output arguments for a
// stream; Start one with Publish.
func (e Endpoints) RTMPTarget(stream, key string) []string {
	return []string{"-f", "flv", e.RTMP + "/" + stream + "?key=" + url.QueryEscape(key)}
}

// RTSPTarget publishes over TCP, with the key as the password.
func (e Endpoints) RTSPTarget(stream, key string) []string {
	u := strings.Replace(e.RTSP, "rtsp://", "rtsp://any:"+url.QueryEscape(key)+"@", 1)
	return []string{"-f", "rtsp", "-rtsp_transport", "tcp", u + "/" + stream}
}

// SRTTarget publishes MPEG-TS in SRT, with the key in the stream id; ffmpeg sends
// that as it is written.
func (e Endpoints) SRTTarget(stream, key string) []string {
	return []string{"-f", "mpegts", e.SRT + "?pkt_size=1316&latency=200000&streamid=" +
		"publish:live/" + stream + ":any:" + key}
}

// clipLength is longer than any test looks at one publisher of H.265.
const clipLength = 2 * time.Minute

// Publish starts ffmpeg sending the picture to a target. H.265, which two busy
// cores can't always encode in real time, is encoded before.
func Publish(t T, p Picture, target []string) *Proc {
	t.Helper()
	args := p.Args()
	if p.Codec == "h265" {
		clip, err := testkit.Clip(FFmpeg(t), clipLength, args...)
		if err != nil {
			t.Fatalf("%v", err)
		}
		args = []string{"-hide_banner", "-loglevel", "warning", "-nostdin", "-re", "-i", clip, "-map", "0", "-c", "copy"}
	}
	argv := append([]string{FFmpeg(t)}, args...)
	return Start(t, "publisher", append(argv, target...))
}
