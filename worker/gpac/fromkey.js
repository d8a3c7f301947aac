// A filter between an RTSP source and the video decoder: it begins with the first
// keyframe that has a time. A reader joins in mid-GOP, and
// libavcodec makes pictures of such H.265, grey ones. Until mediamtx's first sender
// report packets have no time, and after it some can lie before 0, which GPAC takes
// for times in the far future. 2.x does not read the parameter sets that the SDP
// has: they go before that keyframe. It also has to be told that each packet is a
// whole picture, or it makes times of its own for H.265.
// `codec`, `parameters`, an array of bytes, and `whole` are defined before this text.
"use strict";

filter.set_name("fromkey");
filter.set_cap({id: "StreamType", value: "Visual", inout: true});
filter.set_cap({id: "CodecID", value: codec, inout: true});
filter.max_pids = 1;

let source = null, out = null, begun = false;

filter.configure_pid = function (pid) {
  source = pid;
  if (!out) out = filter.new_pid();
  out.copy_props(pid);
  if (whole) out.set_prop("UnframedAU", true);
  return GF_OK;
};

filter.remove_pid = function () {
  source = null;
};

filter.process_event = function () {};

// first sends p with the parameter sets before it.
function first(p) {
  const data = new Uint8Array(p.data), both = new Uint8Array(parameters.length + data.length);
  both.set(parameters);
  both.set(data, parameters.length);
  const q = out.new_packet(both.buffer);
  q.copy_props(p);
  q.cts = p.cts;
  q.dts = p.dts === null ? p.cts : p.dts;
  q.dur = p.dur;
  q.sap = GF_FILTER_SAP_1;
  q.send();
}

filter.process = function () {
  if (!source) return GF_OK;
  for (let p; (p = source.get_packet()); source.drop_packet()) {
    if (!begun && (p.sap != GF_FILTER_SAP_1 || p.cts === null || p.cts < 0)) continue;
    if (begun || parameters.length == 0) out.forward(p);
    else first(p);
    begun = true;
  }
  if (!source.eos) return GF_OK;
  out.eos = true;
  return GF_EOS;
};
