package transcode

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/dionysia-dev/dionysia/services/capacity"
	"github.com/dionysia-dev/dionysia/worker/device"
)

// fault is a failure of a run that is its device's, and not its source's.
type fault struct {
	// kind is what it teaches of the device; "" teaches nothing, but another
	// device may do better.
	kind device.FailureKind
	// detail quotes the encoder, or says what was measured.
	detail string
}

// what says the kind in words.
func (f fault) what() string {
	switch f.kind {
	case device.OpenFailed:
		return "its encoder failed"
	case device.OutOfMemory:
		return "its memory is full"
	case device.SessionCap:
		return "the driver allows no more encoder sessions"
	case device.TooSlow:
		return "it is too slow"
	case device.Throttled:
		return "it is too slow, with its clocks lowered"
	}
	return "it can't take the run"
}

func (f fault) String() string { return f.what() + ": " + f.detail }

// encoderVoice marks the lines of NVENC's encoders in libavcodec, as GPAC 1.x
// ("[h264_nvenc @ 0x55…]") and 2.x ("[h264_nvenc]") print them, and of GPAC's
// filter around encoders.
var encoderVoice = regexp.MustCompile(`\[(?:(?:h264|hevc|av1)_nvenc(?: @ 0x[0-9a-f]+)?|FFEnc)\]`)

// address is what in such a line changes from run to run.
var address = regexp.MustCompile(` @ 0x[0-9a-f]+`)

// saying is some words of an encoder, and what they mean.
type saying struct {
	words string
	kind  device.FailureKind
}

// capOrMemory is what earlier drivers say at the session cap, and all of them
// when the memory is full.
const capOrMemory = "OpenEncodeSessionEx failed: out of memory"

// encoderSays are the words with which an encoder gives up, what says most first.
// Read in FFmpeg's nvenc.c (4.1 to 7) and cuda_check.h, and in GPAC's ff_enc.c
// (1.0.1 and 26.08); other lines, and there are many warnings, mean nothing here.
func encoderSays() []saying {
	return []saying{
		// The picture is larger than the card's encoder takes: the ladder's doing.
		{"Width ", ""},
		{"Height ", ""},
		// Above the cap of GeForce cards.
		{"incompatible client key", device.SessionCap},
		{capOrMemory, device.SessionCap}, // see encoderFault
		{"CUDA_ERROR_OUT_OF_MEMORY", device.OutOfMemory},
		{": out of memory (10)", device.OutOfMemory},
		{"CUDA_ERROR_", device.OpenFailed},
		{"No codecid specified", device.OpenFailed}, // libavcodec lacks the encoder
		{"Cannot find encoder for codec", device.OpenFailed},
		{"Cannot load lib", device.OpenFailed},
		{"does not support the required nvenc API version", device.OpenFailed},
		{"OpenEncodeSessionEx failed", device.OpenFailed},
		{"InitializeEncoder failed", device.OpenFailed},
		{"CreateInputBuffer failed", device.OpenFailed},
		{"CreateBitstreamBuffer failed", device.OpenFailed},
		{"Failed to create nvenc instance", device.OpenFailed},
		{"Failed to query nvenc max version", device.OpenFailed},
		{"Codec not supported", device.OpenFailed},
		{"EncodePicture failed", device.OpenFailed},
		{"Failed locking bitstream buffer", device.OpenFailed},
		{"Failed locking nvenc input buffer", device.OpenFailed},
		{"No CUDA capable devices found", device.OpenFailed},
		{"No NVENC capable devices found", device.OpenFailed},
		{"No capable devices found", device.OpenFailed},
		{"but only", device.OpenFailed}, // "Requested GPU 0, but only 0 GPUs are available!"
	}
}

// fullMemory is the share of a card's memory in use from which "out of memory"
// is taken at its word on a card whose driver also says so at the session cap.
const fullMemory = 0.9

// givesUp reports whether a line of GPAC's log is an encoder's failure.
func givesUp(line string) bool {
	if !encoderVoice.MatchString(line) {
		return false
	}
	for _, s := range encoderSays() {
		if s.in(line) {
			return true
		}
	}
	return false
}

func (s saying) in(line string) bool {
	return strings.Contains(line, s.words) && (s.kind != "" || strings.Contains(line, " exceeds "))
}

// encoderFault finds the encoder's failure on d in lines that givesUp picked. On
// the CPU there is none: what x264 refuses is the run's own doing.
func encoderFault(lines []string, d capacity.Device) (fault, bool) {
	if d.Kind != capacity.GPU {
		return fault{}, false
	}
	for _, s := range encoderSays() {
		for _, line := range lines {
			if !s.in(line) {
				continue
			}
			f := fault{kind: s.kind, detail: address.ReplaceAllString(line, "")}
			if s.words == capOrMemory && !capped(d) {
				f.kind = device.OutOfMemory
			}
			return f, true
		}
	}
	return fault{}, false
}

// capped tells that the session cap, and not the memory, is why a session was
// refused for want of memory.
func capped(d capacity.Device) bool {
	g := d.GPU
	if g == nil || g.SessionLimited == nil || !*g.SessionLimited {
		return false
	}
	return g.MemoryUsed == nil || g.MemoryTotal == nil || float64(*g.MemoryUsed) < fullMemory*float64(*g.MemoryTotal)
}

// How busy something is from which it is taken for what holds a run up: of all
// cores 0 to 1, of a card's encoders in percent.
const (
	busyCPU     = 0.9
	busyEncoder = 80
)

// pacing is what is known when a run stays below real time.
type pacing struct {
	name     string  // of the slowest rendition
	pace     float64 // seconds of media for each second, over the newest segments
	delivers bool    // the source sends more than the run takes
	device   capacity.Device
	load     *float64 // of all cores, by whatever process; nil is unknown
}

// paceFault says which device holds a run up, and why; ok is false when it is the
// source, or unknown. Decoding and scaling are the CPU's on a GPU too.
func paceFault(p pacing) (id string, f fault, ok bool) {
	if !p.delivers {
		return "", fault{}, false
	}
	f = fault{kind: device.TooSlow, detail: fmt.Sprintf("%s is made at %.2f of real time while the source delivers", p.name, p.pace)}
	busy := p.load != nil && *p.load >= busyCPU
	if p.load != nil {
		f.detail += fmt.Sprintf("; the CPU is %.0f %% busy", *p.load*100)
	}
	if p.device.Kind != capacity.GPU {
		if !busy { // one thread is full, not the CPU
			f.kind = ""
		}
		return p.device.ID, f, true
	}
	if pct, known := encoders(p.device); known && pct < busyEncoder {
		f.detail += fmt.Sprintf("; the card's encoders are %d %% busy", pct)
		if busy {
			return capacity.ResourceCPU, f, true
		}
		f.kind = "" // one thread is full, or one engine of several, not the card
		return p.device.ID, f, true
	}
	if why := lowered(p.device); why != "" {
		f.kind = device.Throttled
		f.detail += "; clocks lowered by " + why
		return p.device.ID, f, true
	}
	if busy {
		return capacity.ResourceCPU, f, true
	}
	return p.device.ID, f, true
}

// encoders is how busy a card's encoders are in percent, where that is known. In
// MIG mode NVML has no figure for one instance.
func encoders(d capacity.Device) (pct int, known bool) {
	if d.GPU == nil || d.GPU.EncoderUtilization == nil || d.GPU.MIG != nil && *d.GPU.MIG {
		return 0, false
	}
	return *d.GPU.EncoderUtilization, true
}

// lowered lists why a card's clocks are lowered by heat or power, "" when they
// are not, or that is unknown. Other reasons, such as an idle card's, hold
// nothing up.
func lowered(d capacity.Device) string {
	if d.GPU == nil {
		return ""
	}
	var why []string
	for _, r := range d.GPU.ClockReasons {
		if strings.Contains(r, "thermal") || strings.Contains(r, "power") || strings.Contains(r, "hw_slowdown") {
			why = append(why, r)
		}
	}
	return strings.Join(why, ", ")
}
