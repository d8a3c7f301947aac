package device

import (
	"errors"
	"fmt"

	"github.com/dionysia-dev/dionysia/services/capacity"
)

// The errors of NVML that are acted on. All others make a field unknown.
var (
	errNoLibrary = errors.New("no library")
	errNoDriver  = errors.New("no driver")
	// errMismatch: the driver was replaced by another version, and the library in
	// this process is the old one's. Only a new process loads the new one.
	errMismatch = errors.New("the driver was replaced; restart the worker")
	errNVML     = errors.New("NVML failed")
	// errGone: the card fell off the bus, or its handle is no longer valid.
	errGone = errors.New("the card does not answer")
)

// gone makes err say that a card does not answer, once.
func gone(err error) error {
	if errors.Is(err, errGone) {
		return err
	}
	return fmt.Errorf("%w: %w", errGone, err)
}

// driver is what is used of NVML. Any of its calls may hang. After close, open
// begins anew, and what was got before is invalid.
type driver interface {
	// open returns the driver's version, "" when unknown. Its error wraps one of
	// those above.
	open() (version string, err error)
	close()
	// count is the number of cards.
	count() (int, error)
	// card wraps errGone when the card can't even be named.
	card(index int) (card, error)
}

// card is one of NVML's devices. Its id and name are guaranteed.
type card struct {
	id   string // UUID, in lower case
	name string
	// state asks for everything else; what fails is unknown. Its error wraps
	// errGone.
	state func() (capacity.GPUState, error)
}

// clockReasons names the bits of NVML's clock event reasons (nvml.h). The first,
// an idle card, lowers nothing that is wanted, and is left out.
var clockReasons = []struct {
	bit  uint64
	name string
}{
	{0x2, "applications_clocks_setting"},
	{0x4, "sw_power_cap"},
	{0x8, "hw_slowdown"},
	{0x10, "sync_boost"},
	{0x20, "sw_thermal_slowdown"},
	{0x40, "hw_thermal_slowdown"},
	{0x80, "hw_power_brake_slowdown"},
	{0x100, "display_clock_setting"},
	{0x200, "board_limit"},
	{0x400, "reliability"},
}

func clockReasonNames(mask uint64) []string {
	names := []string{}
	for _, r := range clockReasons {
		if mask&r.bit != 0 {
			names = append(names, r.name)
		}
	}
	return names
}

// codecs are those of NVML's nvmlEncoderType_t, in its order.
var codecs = []string{"h264", "hevc", "av1"}
