package transcode

import (
	"strings"
	"testing"

	"github.com/dionysia-dev/dionysia/services/capacity"
	"github.com/dionysia-dev/dionysia/worker/device"
)

func ptr[T any](v T) *T { return &v }

const gpu1, gpu2 = "gpu-00000000-0000-0000-0000-000000000001", "gpu-00000000-0000-0000-0000-000000000002"

// What encoders were seen to say, or print according to their source; of the
// lines around it too, which mean nothing of the device.
func TestEncoderFault(t *testing.T) {
	card := capacity.Device{ID: gpu1, Kind: capacity.GPU, Usable: true, GPU: &capacity.GPUState{}}
	geforce := card
	geforce.GPU = &capacity.GPUState{SessionLimited: ptr(true), MemoryTotal: ptr[int64](8 << 30), MemoryUsed: ptr[int64](2 << 30)}
	full := card
	full.GPU = &capacity.GPUState{SessionLimited: ptr(true), MemoryTotal: ptr[int64](8 << 30), MemoryUsed: ptr[int64](8<<30 - 1)}
	cpu := capacity.Device{ID: "cpu", Kind: capacity.CPU, Usable: true}
	for name, c := range map[string]struct {
		log  string
		d    capacity.Device
		kind device.FailureKind
		says string // "": no fault
	}{
		"GPAC 1.0.1 without NVENC": {"[FFEnc] No codecid specified\nFailed to connect filter ffsws PID video1 to filter ffenc: Bad Parameter\nsession last connect error Bad Parameter",
			card, device.OpenFailed, "[FFEnc] No codecid specified"},
		"no driver": {"[h264_nvenc @ 0x5643fbdf2780] Cannot load libcuda.so.1\n[FFEnc] PID video1 failed to open codec context: Operation not permitted",
			card, device.OpenFailed, "[h264_nvenc] Cannot load libcuda.so.1"},
		"no driver, 2.x": {"[h264_nvenc] Cannot load libnvidia-encode.so.1\n[h264_nvenc] The minimum required Nvidia driver for nvenc is 520.56.06 or newer",
			card, device.OpenFailed, "Cannot load libnvidia-encode.so.1"},
		"old driver": {"[hevc_nvenc @ 0x1] Driver does not support the required nvenc API version. Required: 12.1 Found: 11.1",
			card, device.OpenFailed, "Required: 12.1 Found: 11.1"},
		"may not open /dev/nvidia0": {"[h264_nvenc] dl_fn->cuda_dl->cuInit(0) failed[h264_nvenc]  -> CUDA_ERROR_NO_DEVICE: no CUDA-capable device is detected[h264_nvenc] ",
			card, device.OpenFailed, "CUDA_ERROR_NO_DEVICE"},
		"no NVENC on the card": {"[h264_nvenc @ 0x1] OpenEncodeSessionEx failed: unsupported device (2): (no details)\n[h264_nvenc @ 0x1] No capable devices found",
			card, device.OpenFailed, "unsupported device (2)"},
		"no AV1 on the card": {"[av1_nvenc @ 0x1] Codec not supported\n[av1_nvenc @ 0x1] No capable devices found", card, device.OpenFailed, "Codec not supported"},
		"session cap": {"[h264_nvenc @ 000001b6accb0500] x\n[h264_nvenc @ 0x1b6accb0500] OpenEncodeSessionEx failed: incompatible client key (21): (no details)\n[h264_nvenc @ 0x1b6accb0500] No capable devices found",
			geforce, device.SessionCap, "[h264_nvenc] OpenEncodeSessionEx failed: incompatible client key (21): (no details)"},
		"session cap, earlier driver": {"[h264_nvenc @ 0x1] OpenEncodeSessionEx failed: out of memory (10): (no details)\n[h264_nvenc @ 0x1] No capable devices found",
			geforce, device.SessionCap, "out of memory (10)"},
		"the same with the memory full":   {"[h264_nvenc @ 0x1] OpenEncodeSessionEx failed: out of memory (10): (no details)", full, device.OutOfMemory, "out of memory (10)"},
		"the same on a card without caps": {"[h264_nvenc @ 0x1] OpenEncodeSessionEx failed: out of memory (10): (no details)", card, device.OutOfMemory, "out of memory (10)"},
		"no memory for CUDA":              {"[h264_nvenc @ 0x1] dl_fn->cuda_dl->cuCtxCreate(&ctx->cu_context_internal, 0, cu_device) failed -> CUDA_ERROR_OUT_OF_MEMORY: out of memory", geforce, device.OutOfMemory, "CUDA_ERROR_OUT_OF_MEMORY"},
		"no memory for pictures":          {"[h264_nvenc @ 0x1] CreateInputBuffer failed: out of memory (10): (no details)", geforce, device.OutOfMemory, "CreateInputBuffer"},
		"a card that is gone":             {"[h264_nvenc @ 0x1] EncodePicture failed!: device does not exist (5): (no details)", card, device.OpenFailed, "device does not exist"},
		"a picture that is too large":     {"[h264_nvenc @ 0x1] Width 7680 exceeds 4096\n[h264_nvenc @ 0x1] No capable devices found", card, "", "Width 7680 exceeds 4096"},

		"nothing": {"", card, "", ""},
		"the source's fault": {"[h264 @ 0x1] non-existing PPS 0 referenced\n[h264 @ 0x1] decode_slice_header error\n[FFDec] PID video1 failed to decode frame: Invalid data found when processing input\n[RTMP] out of memory (10)",
			card, "", ""},
		"warnings":               {"[h264_nvenc @ 0x1] The selected preset is deprecated. Use p1 to p7 + -tune or fast/medium/slow.\n[FFEnc] Negative input timestamp", card, "", ""},
		"the sound's encoder":    {"[aac @ 0x1] Unsupported channel layout\n[FFEnc] PID audio1 failed to open codec context: Invalid argument", card, "", ""},
		"another encoder speaks": {"x264 [error]: invalid preset 'p4'\n[libx264 @ 0x1] Error setting preset/tune p4/(null).\n[FFEnc] PID video1 failed to open codec context: Invalid argument", card, "", ""},
		"x264 on the CPU":        {"[FFEnc] No codecid specified", cpu, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			ring := newLogRing(t.TempDir() + "/log")
			_, _ = ring.Write([]byte(c.log + "\n" + strings.Repeat("noise\n", 2*ringLines)))
			ring.close()
			f, ok := encoderFault(ring.givenUp(), c.d)
			if ok != (c.says != "") || f.kind != c.kind || !strings.Contains(f.detail, c.says) || strings.Contains(f.detail, "0x") {
				t.Errorf("%v %q %q, want %q saying %q", ok, f.kind, f.detail, c.kind, c.says)
			}
		})
	}
}

func TestPaceFault(t *testing.T) {
	cpu := capacity.Device{ID: "cpu", Kind: capacity.CPU}
	card := func(reasons ...string) capacity.Device {
		return capacity.Device{ID: gpu1, Kind: capacity.GPU, GPU: &capacity.GPUState{ClockReasons: reasons}}
	}
	working := func(pct int, reasons ...string) capacity.Device {
		d := card(reasons...)
		d.GPU.EncoderUtilization = &pct
		return d
	}
	mig := working(0)
	mig.GPU.MIG = ptr(true)
	for name, c := range map[string]struct {
		p    pacing
		id   string // "": nobody
		kind device.FailureKind
	}{
		"the source is slow":           {pacing{device: card(), load: ptr(1.0)}, "", ""},
		"the card":                     {pacing{delivers: true, device: working(97), load: ptr(0.4)}, gpu1, device.TooSlow},
		"busy from here":               {pacing{delivers: true, device: working(busyEncoder), load: ptr(0.4)}, gpu1, device.TooSlow},
		"one thread beside a card":     {pacing{delivers: true, device: working(12), load: ptr(0.1)}, gpu1, ""},
		"the same, the load unknown":   {pacing{delivers: true, device: working(12)}, gpu1, ""},
		"the same, the power capped":   {pacing{delivers: true, device: working(12, "sw_power_cap"), load: ptr(0.1)}, gpu1, ""},
		"an idle card, a full CPU":     {pacing{delivers: true, device: working(12), load: ptr(0.95)}, "cpu", device.TooSlow},
		"a MIG instance":               {pacing{delivers: true, device: mig, load: ptr(0.4)}, gpu1, device.TooSlow},
		"the card, the load unknown":   {pacing{delivers: true, device: card()}, gpu1, device.TooSlow},
		"the card is hot":              {pacing{delivers: true, device: card("gpu_idle", "hw_thermal_slowdown"), load: ptr(0.99)}, gpu1, device.Throttled},
		"the card lacks power":         {pacing{delivers: true, device: card("sw_power_cap")}, gpu1, device.Throttled},
		"clocks that mean nothing":     {pacing{delivers: true, device: card("applications_clocks_setting")}, gpu1, device.TooSlow},
		"decoding on a full CPU":       {pacing{delivers: true, device: card(), load: ptr(0.95)}, "cpu", device.TooSlow},
		"the CPU":                      {pacing{delivers: true, device: cpu, load: ptr(0.95)}, "cpu", device.TooSlow},
		"one thread of an idle CPU":    {pacing{delivers: true, device: cpu, load: ptr(0.3)}, "cpu", ""},
		"a card that NVML says little": {pacing{delivers: true, device: capacity.Device{ID: gpu1, Kind: capacity.GPU}}, gpu1, device.TooSlow},
	} {
		id, f, ok := paceFault(c.p)
		if ok != (c.id != "") || id != c.id || f.kind != c.kind {
			t.Errorf("%s: %v %s %+v", name, ok, id, f)
		}
	}
}
