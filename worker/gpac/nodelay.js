// A filter between an audio encoder and its dasher, for GPAC 2.x: it leaves out the
// encoder's delay. 2.x would write it into the init segment as an edit, which
// some players apply and others do not. align.js has allowed for it.
"use strict";

filter.set_name("nodelay");
filter.set_cap({id: "StreamType", value: "Audio", inout: true});
filter.set_cap({id: "CodecID", value: "aac", inout: true});
filter.max_pids = 1;

let source = null, out = null;

filter.configure_pid = function (pid) {
  source = pid;
  if (!out) out = filter.new_pid();
  out.copy_props(pid);
  out.set_prop("Delay", null);
  return GF_OK;
};

filter.remove_pid = function () {
  source = null;
};

filter.process_event = function () {};

filter.process = function () {
  if (!source) return GF_OK;
  for (let p; (p = source.get_packet()); source.drop_packet()) out.forward(p);
  if (!source.eos) return GF_OK;
  out.eos = true;
  return GF_EOS;
};
