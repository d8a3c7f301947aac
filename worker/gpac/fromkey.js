// A filter between an RTSP source and the video decoder, for GPAC 1.0.1: it
// begins with the first keyframe that has a time. A reader joins in mid-GOP, and
// libavcodec makes pictures of such H.265, grey ones. Until mediamtx's first sender
// report packets have no time, and after it some can lie before 0, which GPAC takes
// for times in the far future.
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
    if (!begun && (p.sap != GF_FILTER_SAP_1 || p.cts === null || p.cts < 0)) continue;
    begun = true;
    out.forward(p);
  }
  if (!source.eos) return GF_OK;
  out.eos = true;
  return GF_EOS;
};
