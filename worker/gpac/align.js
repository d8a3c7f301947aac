// A filter between an audio rendition's source and its encoder, for GPAC 1.0.1:
// it makes one continuous stream of whole AAC frames, stamped in samples, that
// begins with the video. It gives the encoder the planar floats it wants, so that
// GPAC puts no resampler between, whose times jump and repeat.
// `withVideo` is defined before this text.
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
const LAG = 3 * N;    // see emit
const TRIM = 0.030;   // seconds off before samples are cut or silence is put in
const DRIFT = 0.003;  // seconds off, on average, before single samples are
const JUMP = 10;      // seconds: a new beginning, as video has it
const WAITING = 500;  // packets kept until the video begins

let video = null, audio = null, out = null;
let rate = 0, channels = 0, scale = 0;
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
  channels = pid.get_prop("NumChannels");
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
  const from = new array(data), to = new Float32Array(from.length);
  if (planar && full == 1) {
    to.set(from);
    return to;
  }
  const len = from.length / channels;
  for (let c = 0; c < channels; c++) {
    for (let i = 0; i < len; i++) to[c * len + i] = from[planar ? c * len + i : i * channels + c] / full;
  }
  return to;
}

// emit appends samples [from, from+n) of src, which has len, or silence.
function emit(src, from, n, len) {
  while (n > 0) {
    const k = Math.min(n, N - have);
    for (let c = 0; c < channels; c++) {
      const at = c * N + have, first = c * len + from;
      if (src) frame.set(src.subarray(first, first + k), at);
      else frame.fill(0, at, at + k);
    }
    have += k;
    from += k;
    n -= k;
    pos += k;
    if (have == N) {
      const p = out.new_packet(frame.buffer);
      // The encoder adds two frames to the time of a frame's sound.
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
    if (withVideo) pos = Math.ceil(start * rate) + LAG - N;
    else pos = at;
    if (at + len <= pos) return;
    begun = true;
  }
  const off = at - pos;
  let from = 0;
  if (Math.abs(off) > JUMP * rate) {
    pos = at;
    have = drift = 0;
  } else if (off > TRIM * rate) {
    emit(null, 0, off, 0);
    drift = 0;
  } else if (off < -TRIM * rate) {
    from = Math.min(len, -off);
    drift = 0;
  } else {
    // Times in milliseconds jitter, and a publisher's two clocks part slowly.
    drift += (off - drift) / 64;
    if (drift > DRIFT * rate) {
      emit(src, 0, 1, len);
      drift -= 1;
    } else if (drift < -DRIFT * rate) {
      from = 1;
      drift += 1;
    }
  }
  emit(src, from, len - from, len);
}

filter.process = function () {
  if (!out || !audio) return GF_OK;
  for (let p; video && (p = video.get_packet()); video.drop_packet()) {
    if (start < 0) start = p.cts / video.timescale;
  }
  for (let p; (p = audio.get_packet()); audio.drop_packet()) {
    const src = floats(p.data), cts = p.cts;
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
