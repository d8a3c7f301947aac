package stream

// Profile is a named ladder. The source decides which of its rungs are made;
// see Profile.Ladder.
type Profile struct {
	Name string `json:"name"`
	// Segment is the segments' nominal length, 1 to 10 s; every video
	// rendition's keyframe interval divides it.
	Segment Seconds          `json:"segment_seconds"`
	Video   []VideoRendition `json:"video"`
	Audio   []AudioRendition `json:"audio"`
	BuiltIn bool             `json:"built_in"`
	Version int64            `json:"version"`
}

// VideoRendition is one rung.
type VideoRendition struct {
	Name string `json:"name"` // grammar of CheckName; part of URLs
	// Codec is one of VideoCodecs.
	Codec string `json:"codec"`
	// Width and Height bound the picture; the source's aspect is kept within
	// them, and they are swapped for a source that is taller than wide.
	Width  int `json:"width"`
	Height int `json:"height"`
	// FPS caps the frame rate; 0 is the source's own.
	FPS float64 `json:"fps"`
	// Bitrate in bits per second.
	Bitrate int64 `json:"bitrate"`
	// Keyframe is the interval between keyframes.
	Keyframe Seconds `json:"keyframe_seconds"`
	// Preset is x264's name for it, ultrafast to slow.
	Preset string `json:"preset"`
}

// AudioRendition is one audio track.
type AudioRendition struct {
	Name     string `json:"name"`
	Codec    string `json:"codec"`    // aac
	Bitrate  int64  `json:"bitrate"`  // bits per second
	Channels int    `json:"channels"` // 1 or 2
}

// SourceMedia is what a worker learnt of a source by probing it.
type SourceMedia struct {
	Video *SourceVideo `json:"video,omitempty"` // nil: no video
	Audio *SourceAudio `json:"audio,omitempty"` // nil: no audio
}

// SourceVideo describes the source's picture. Width and Height are the coded
// picture's, after cropping; SAR is the sample aspect ratio (1:1 when unknown).
type SourceVideo struct {
	Codec  string `json:"codec"` // h264, h265
	Width  int    `json:"width"`
	Height int    `json:"height"`
	SAR    Rate   `json:"sar"`
	FPS    Rate   `json:"fps"`
}

// SourceAudio describes the source's sound.
type SourceAudio struct {
	Codec      string `json:"codec"` // aac, opus, mp3
	SampleRate int    `json:"sample_rate"`
	Channels   int    `json:"channels"`
}
