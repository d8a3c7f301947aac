package stream

// NVENCPreset returns the NVENC preset that stands for one of Presets, p1 the
// fastest to p7 the best: both have seven that a rendition may ask for. A name
// that is not one of them is p3, the unit of a GPU's capacity.
func NVENCPreset(x264 string) string {
	switch x264 {
	case "ultrafast":
		return "p1"
	case "superfast":
		return "p2"
	case "faster":
		return "p4"
	case "fast":
		return "p5"
	case "medium":
		return "p6"
	case "slow":
		return "p7"
	}
	return "p3" // veryfast
}
