// A filter between an RTSP source and the video decoder, for GPAC 1.0.1: it
// begins with the first keyframe that has a time. A reader joins in mid-GOP, and
// mediamtx's first packet comes without a time; libavcodec makes pictures of such
// H.265, grey ones, and GPAC counts the missing time as one.
// `codec` is defined before this text.
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
  return GF_OK;
};

filter.remove_pid = function () {
  source = null;
};

filter.process_event = function () {};

filter.process = function () {
  if (!source) return GF_OK;
  for (let p; (p = source.get_packet()); source.drop_packet()) {
    if (!begun && (p.sap != GF_FILTER_SAP_1 || p.cts === null)) continue;
    begun = true;
    out.forward(p);
  }
  if (!source.eos) return GF_OK;
  out.eos = true;
  return GF_EOS;
};
