package origin

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/Eyevinn/mp4ff/aac"
	"github.com/Eyevinn/mp4ff/av1"
	"github.com/Eyevinn/mp4ff/avc"
	"github.com/Eyevinn/mp4ff/hevc"
	"github.com/Eyevinn/mp4ff/mp4"

	"github.com/dionysia-dev/dionysia/services/stream"
)

// describe fills in the codec string (RFC 6381) and the format from the sample
// entry.
func describe(stsd *mp4.StsdBox, t *stream.Track) error {
	switch {
	case stsd.AvcX != nil && stsd.AvcX.AvcC != nil && len(stsd.AvcX.AvcC.SPSnalus) > 0:
		sps, err := avc.ParseSPSNALUnit(stsd.AvcX.AvcC.SPSnalus[0], false)
		if err != nil {
			return fmt.Errorf("parsing the H.264 parameter set: %w", err)
		}
		describeVideo(stsd.AvcX, t)
		t.Codec = lowerHex(avc.CodecString(stsd.AvcX.Type(), sps))
	case stsd.HvcX != nil && stsd.HvcX.HvcC != nil:
		describeVideo(stsd.HvcX, t)
		t.Codec = hevcCodec(stsd.HvcX.Type(), stsd.HvcX.HvcC.DecConfRec)
	case stsd.Av01 != nil && stsd.Av01.Av1C != nil:
		describeVideo(stsd.Av01, t)
		t.Codec = av1Codec(stsd.Av01.Av1C.CodecConfRec)
	case stsd.Mp4a != nil && stsd.Mp4a.Esds != nil:
		t.Kind, t.Channels, t.SampleRate = stream.Audio, int(stsd.Mp4a.ChannelCount), int(stsd.Mp4a.SampleRate)
		t.Codec = "mp4a.40.2"
		describeAAC(stsd.Mp4a.Esds, t)
	default:
		return errors.New("init with a codec that is not supported")
	}
	return nil
}

func describeVideo(e *mp4.VisualSampleEntryBox, t *stream.Track) {
	t.Kind, t.Width, t.Height = stream.Video, int(e.Width), int(e.Height)
}

// hevcCodec is ISO/IEC 14496-15 E.3's string. It takes the configuration record's
// own figures: the parameter sets of an hev1 may be in the samples alone.
func hevcCodec(entry string, c hevc.DecConfRec) string {
	return hevc.CodecString(entry, &hevc.SPS{ProfileTierLevel: hevc.ProfileTierLevel{
		GeneralProfileSpace: c.GeneralProfileSpace, GeneralTierFlag: c.GeneralTierFlag, GeneralProfileIDC: c.GeneralProfileIDC,
		GeneralProfileCompatibilityFlags: c.GeneralProfileCompatibilityFlags,
		GeneralConstraintIndicatorFlags:  c.GeneralConstraintIndicatorFlags, GeneralLevelIDC: c.GeneralLevelIDC}})
}

// av1Codec is the short form of AV1-ISOBMFF 1.2.0, chapter 5: what it leaves out
// is 4:2:0 in BT.709, as encoders here make it.
func av1Codec(c av1.CodecConfRec) string {
	tier, depth := "M", 8
	if c.SeqTier0 != 0 {
		tier = "H"
	}
	switch {
	case c.TwelveBit != 0 && c.SeqProfile == 2:
		depth = 12
	case c.HighBitdepth != 0:
		depth = 10
	}
	return fmt.Sprintf("av01.%d.%02d%s.%02d", c.SeqProfile, c.SeqLevelIdx0, tier, depth)
}

// describeAAC takes what the AudioSpecificConfig says; where it can't be parsed
// the sample entry's figures stand.
func describeAAC(esds *mp4.EsdsBox, t *stream.Track) {
	dec := esds.DecConfigDescriptor
	if dec == nil || dec.DecSpecificInfo == nil {
		return
	}
	asc, err := aac.DecodeAudioSpecificConfig(bytes.NewReader(dec.DecSpecificInfo.DecConfig))
	if err != nil {
		return
	}
	t.Codec = fmt.Sprintf("mp4a.40.%d", asc.ObjectType)
	if asc.SamplingFrequency > 0 {
		t.SampleRate = asc.SamplingFrequency
	}
	if asc.ChannelConfiguration > 0 && asc.ChannelConfiguration < 7 {
		t.Channels = int(asc.ChannelConfiguration)
	}
}

func lowerHex(codec string) string {
	entry, rest, _ := strings.Cut(codec, ".")
	return entry + "." + strings.ToLower(rest)
}
