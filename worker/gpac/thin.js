// A filter between the video decoder and a scaler: it keeps every `step`th
// picture, as it is. libavfilter's framestep, which GPAC can run too, loses the
// pictures' durations, and with them one frame of the first segment.
// `step` is defined before this text, and `fps`: the frame rate that is left as
// [frames, seconds], null to say what the source says.
"use strict";

filter.set_name("thin");
filter.set_cap({id: "StreamType", value: "Visual", inout: true});
filter.set_cap({id: "CodecID", value: "raw", inout: true});
filter.max_pids = 1;

let source = null, out = null, n = 0;

filter.configure_pid = function (pid) {
  source = pid;
  if (!out) out = filter.new_pid();
  out.copy_props(pid);
  if (fps) out.set_prop("FPS", {n: fps[0], d: fps[1]});
  return GF_OK;
};

filter.remove_pid = function () {
  source = null;
};

filter.process_event = function () {};

filter.process = function () {
  if (!source) return GF_OK;
  for (let p; (p = source.get_packet()); source.drop_packet()) {
    if (n++ % step) continue;
    const q = out.new_packet(p, true); // refers to it: no copy
    q.cts = q.dts = p.cts;
    q.dur = p.dur * step;
    q.sap = GF_FILTER_SAP_1;
    q.send();
  }
  if (!source.eos) return GF_OK;
  out.eos = true;
  return GF_EOS;
};
