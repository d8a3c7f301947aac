package device

import (
	"slices"
	"strconv"
	"strings"
)

// architectures are NVML's DEVICE_ARCH_* (nvml.h).
var architectures = map[uint32]string{2: "Kepler", 3: "Maxwell", 4: "Pascal", 5: "Volta", 6: "Turing", 7: "Ampere", 8: "Ada", 9: "Hopper",
	10: "Blackwell", 13: "Rubin"}

// engineFPS is what one NVENC engine does of 1920x1080 H.264 at preset P3 in
// frames per second: NVENC application note of Video Codec SDK 13.0, table of
// H.264 performance.
var engineFPS = map[string]int64{"Turing": 602, "Ampere": 617, "Ada": 647, "Blackwell": 708}

const framePx = 1920 * 1080

// model is a card of the table.
type model struct {
	name         string // as words of NVML's name
	architecture string
	engines      int // of one NVML device
}

// models are the cards whose number of NVENC engines is not one: NVIDIA's Video
// Encode and Decode GPU Support Matrix, and the data sheets of those without. The
// A16 has four devices of one each. A card that is not here has one.
var models = []model{
	{"A100", "Ampere", 0}, {"A100X", "Ampere", 0}, {"A30", "Ampere", 0}, {"A30X", "Ampere", 0}, {"A800", "Ampere", 0},
	{"H100", "Hopper", 0}, {"H200", "Hopper", 0}, {"H800", "Hopper", 0}, {"H20", "Hopper", 0}, {"GH200", "Hopper", 0},
	{"B100", "Blackwell", 0}, {"B200", "Blackwell", 0}, {"B300", "Blackwell", 0}, {"GB200", "Blackwell", 0}, {"GB300", "Blackwell", 0},
	{"T4", "Turing", 1}, {"A2", "Ampere", 1}, {"A10", "Ampere", 1}, {"A16", "Ampere", 1}, {"A40", "Ampere", 1},
	{"L4", "Ada", 2}, {"L40", "Ada", 3}, {"L40S", "Ada", 3}, {"RTX 6000 Ada", "Ada", 3},
	{"RTX 4090", "Ada", 2}, {"RTX 4080", "Ada", 2}, {"RTX 4070 Ti", "Ada", 2},
	{"RTX 5090", "Blackwell", 3}, {"RTX 5080", "Blackwell", 2}, {"RTX 5070 Ti", "Blackwell", 2},
	{"RTX PRO 6000 Blackwell", "Blackwell", 4},
}

// lookUp finds a card in the table, by whole words of its name. Laptops' chips
// differ from those of the same name; they are not in the table.
func lookUp(name string) (model, bool) {
	words := strings.FieldsFunc(name, func(r rune) bool { return r == ' ' || r == '-' })
	if slices.Contains(words, "Laptop") {
		return model{}, false
	}
	for _, m := range models {
		want := strings.Fields(m.name)
		for i := 0; i+len(want) <= len(words); i++ {
			if slices.Equal(words[i:i+len(want)], want) {
				return m, true
			}
		}
	}
	return model{}, false
}

// engines returns how many NVENC engines a card has. architecture is "" when
// unknown. With MIG on the instance that is used is sure of one only.
func engines(name, architecture string, mig bool) int {
	n := 1
	if m, ok := lookUp(name); ok {
		n = m.engines
	} else if architecture == "Hopper" {
		n = 0
	}
	if mig {
		n = min(n, 1)
	}
	return n
}

// enginePxPerS returns what one engine encodes in px/s, and false when the table
// does not say.
func enginePxPerS(name, architecture string) (int64, bool) {
	if m, ok := lookUp(name); ok && architecture == "" {
		architecture = m.architecture
	}
	fps, ok := engineFPS[architecture]
	return fps * framePx, ok
}

// sessionCaps are how many encoder sessions GeForce drivers allow on a system, by
// the first branch that does: 8 in the NVENC application note of SDK 13.0, 12 in
// NVIDIA's support matrix since SDK 13.1, whose encoders need driver 610; 3 and 5
// before. Where it is wrong, the first refusal teaches it.
var sessionCaps = []struct{ branch, sessions int }{{610, 12}, {550, 8}, {530, 5}, {0, 3}}

// sessionCap returns the cap of a driver version such as 570.86.15. An unknown one
// gets that of SDK 13.0.
func sessionCap(driver string) int {
	major, _, _ := strings.Cut(driver, ".")
	branch, err := strconv.Atoi(major)
	if err != nil {
		branch = 550
	}
	for _, c := range sessionCaps {
		if branch >= c.branch {
			return c.sessions
		}
	}
	return sessionCaps[len(sessionCaps)-1].sessions
}
