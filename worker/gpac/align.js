// A filter between an audio rendition's source and its encoder:
// it makes one continuous stream of whole AAC frames, stamped in samples, that
// begins with the video. It gives the encoder the planar floats it wants, so that
// GPAC puts no resampler between, whose times jump and repeat.
// `withVideo`, `lag` and `mix` are defined before this text; mix is 1 or 2, the
// channels that are left of more, or 0 for as many as come.
"use strict";

filter.set_name("align");
filter.set_cap({id: "StreamType", value: "Visual"});
filter.set_cap({id: "CodecID", value: "raw"});
filter.set_cap();
filter.set_cap({id: "StreamType", value: "Audio", inout: true});
filter.set_cap({id: "CodecID", value: "raw", inout: true});
filter.max_pids = 2;

// What decoders give: arrays, and the value of full scale.
const samples = {s16: [Int16Array, 1 << 15], s32: [Int32Array, 2 ** 31], flt: [Float32Array, 1], dbl: [Float64Array, 1]};

const N = 1024;       // samples of an AAC frame
const LAG = lag * N;  // see emit
const TRIM = 0.030;   // seconds off before samples are cut or silence is put in
const DRIFT = 0.003;  // seconds off, on average, before single samples are
const JUMP = 10;      // seconds: a new beginning, as video has it
const WAITING = 500;  // packets kept until the video begins

let video = null, audio = null, out = null;
// The channels of libavcodec's layouts, by their number: left, right, centre, those
// behind, and the one for low frequencies, which is left out.
const layouts = {2: "LR", 3: "LRC", 4: "LRCC", 5: "LRClr", 6: "LRC-lr", 8: "LRC-lrlr"};

let rate = 0, channels = 0, scale = 0;
let from = 0; // channels of what comes
let format = "", planar = false; // of what comes
let start = withVideo ? -1 : 0; // seconds
let waiting = [];
let begun = false;
let pos = 0;            // of the next sample, since the source's 0
let frame = null, have = 0, drift = 0;

filter.configure_pid = function (pid) {
  if (pid.get_prop("StreamType") != "Audio") {
    video = pid;
    return GF_OK;
  }
  audio = pid;
  if (!out) out = filter.new_pid();
  out.copy_props(pid);
  rate = pid.get_prop("SampleRate");
  from = pid.get_prop("NumChannels");
  channels = mix && mix < from ? mix : from;
  if (channels < from) {
    out.set_prop("NumChannels", channels);
    out.set_prop("ChannelLayout", channels == 1 ? "mono" : "stereo");
  }
  format = String(pid.get_prop("AudioFormat"));
  planar = /p$/.test(format);
  format = format.replace(/p$/, "");
  if (!samples[format]) return GF_NOT_SUPPORTED;
  scale = pid.timescale;
  out.set_prop("Timescale", rate);
  out.set_prop("AudioFormat", "fltp");
  frame = new Float32Array(N * channels);
  have = 0;
  return GF_OK;
};

filter.remove_pid = function (pid) {
  if (pid === video) video = null;
  if (pid === audio) audio = null;
};

filter.process_event = function () {};

// floats copies a packet's samples, one channel after the other.
function floats(data) {
  const [array, full] = samples[format];
  const src = new array(data), to = new Float32Array(src.length);
  if (planar && full == 1) {
    to.set(src);
    return to;
  }
  const len = src.length / from;
  for (let c = 0; c < from; c++) {
    for (let i = 0; i < len; i++) to[c * len + i] = src[planar ? c * len + i : i * from + c] / full;
  }
  return to;
}

// weight is channel c's share of channel o of the mix, before all are made to add
// up to 1.
function weight(c, o) {
  const is = (layouts[from] || "LR")[c] || "-"; // of an unknown layout, the first two
  if (is == "-") return 0;
  const side = "Ll".includes(is) ? 0 : "Rr".includes(is) ? 1 : o;
  if (channels == 2 && side != o) return 0;
  return "LR".includes(is) ? 1 : Math.SQRT1_2;
}

// mixed returns the channels that are left of src's.
function mixed(src) {
  const len = src.length / from, to = new Float32Array(len * channels);
  for (let o = 0; o < channels; o++) {
    let sum = 0;
    for (let c = 0; c < from; c++) sum += weight(c, o);
    for (let c = 0; c < from; c++) {
      const w = weight(c, o) / sum;
      for (let i = 0; w > 0 && i < len; i++) to[o * len + i] += w * src[c * len + i];
    }
  }
  return to;
}

// emit appends samples [begin, begin+n) of src, which has len, or silence.
function emit(src, begin, n, len) {
  while (n > 0) {
    const k = Math.min(n, N - have);
    for (let c = 0; c < channels; c++) {
      const at = c * N + have, first = c * len + begin;
      if (src) frame.set(src.subarray(first, first + k), at);
      else frame.fill(0, at, at + k);
    }
    have += k;
    begin += k;
    n -= k;
    pos += k;
    if (have == N) {
      const p = out.new_packet(frame.buffer);
      // The frame's sound comes one frame later out of a decoder, and 1.0.1's encoder
      // adds one more to its time: lag is one frame more than what is added.
      p.cts = p.dts = pos - LAG;
      p.dur = N;
      p.sap = GF_FILTER_SAP_1;
      p.send();
      have = 0;
    }
  }
}

function take(src, cts) {
  const len = src.length / channels;
  const at = Math.round(cts * rate / scale);
  if (!begun) {
    // The first packet is stamped one frame after the first picture: audio is
    // cut up to one frame before its grid, video up to one picture after it.
    if (withVideo) pos = Math.ceil(start * rate) + 2 * N;
    else pos = Math.max(at, 2 * N); // no time may come out below 0
    if (at + len <= pos) return;
    begun = true;
  }
  const off = at - pos;
  let begin = 0;
  if (Math.abs(off) > JUMP * rate) {
    pos = at;
    have = drift = 0;
  } else if (off > TRIM * rate) {
    emit(null, 0, off, 0);
    drift = 0;
  } else if (off < -TRIM * rate) {
    begin = Math.min(len, -off);
    drift = 0;
  } else {
    // Times in milliseconds jitter, and a publisher's two clocks part slowly.
    drift += (off - drift) / 64;
    if (drift > DRIFT * rate) {
      emit(src, 0, 1, len);
      drift -= 1;
    } else if (drift < -DRIFT * rate) {
      begin = 1;
      drift += 1;
    }
  }
  emit(src, begin, len - begin, len);
}

filter.process = function () {
  if (!out || !audio) return GF_OK;
  for (let p; video && (p = video.get_packet()); video.drop_packet()) {
    if (start < 0) start = p.cts / video.timescale;
  }
  for (let p; (p = audio.get_packet()); audio.drop_packet()) {
    let src = floats(p.data);
    const cts = p.cts;
    if (channels < from) src = mixed(src);
    if (start < 0) {
      waiting.push({src: src, cts: cts});
      if (waiting.length > WAITING) waiting.shift();
      continue;
    }
    for (const w of waiting) take(w.src, w.cts);
    waiting = [];
    take(src, cts);
  }
  if (!audio.eos) return GF_OK;
  out.eos = true;
  return GF_EOS;
};
