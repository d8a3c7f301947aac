package stream

// Builtins returns the built-in profiles, which can't be changed: 1080p, 720p,
// 480p and 360p are ladders from that height down, 240p is one small rung. A
// rung's bitrates are for x264's veryfast at up to 30 frames per second.
func Builtins() []Profile {
	rung := func(name string, w, h int, bitrate int64) VideoRendition {
		return VideoRendition{Name: name, Codec: "h264", Width: w, Height: h, Bitrate: bitrate, Keyframe: 2, Preset: "veryfast"}
	}
	all := []VideoRendition{
		rung("1080p", 1920, 1080, 5_000_000),
		rung("720p", 1280, 720, 2_800_000),
		rung("480p", 854, 480, 1_400_000),
		rung("360p", 640, 360, 800_000),
		rung("240p", 416, 234, 400_000), // 16:9 in even numbers
	}
	audio := func(bitrate int64) []AudioRendition {
		return []AudioRendition{{Name: "aac", Codec: "aac", Bitrate: bitrate, Channels: 2}}
	}
	profile := func(name string, video []VideoRendition, audioBitrate int64) Profile {
		return Profile{Name: name, Segment: 2, Video: video, Audio: audio(audioBitrate), BuiltIn: true, Version: 1}
	}
	return []Profile{
		profile("1080p", all[:4:4], 128_000),
		profile("720p", all[1:4:4], 128_000),
		profile("480p", all[2:4:4], 96_000),
		profile("360p", all[3:4:4], 96_000),
		profile("240p", all[4:5:5], 64_000),
	}
}

// Builtin returns the built-in profile of that name.
func Builtin(name string) (Profile, bool) {
	for _, p := range Builtins() {
		if p.Name == name {
			return p, true
		}
	}
	return Profile{}, false
}
