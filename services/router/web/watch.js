'use strict';
(() => {
  const $ = (id) => document.getElementById(id);
  const stream = location.pathname.split('/')[2];
  const video = $('video');
  const master = `/live/${stream}/master.m3u8`;
  let stalls = 0;
  let hls = null;

  document.title = `${stream} · Dionysia`;
  $('name').textContent = stream;
  $('hls').href = master;
  $('dash').href = `/live/${stream}/manifest.mpd`;

  const state = (text) => {
    $('state').textContent = text;
    document.title = `${text} – ${stream}`;
  };
  const report = (text) => {
    const lines = $('errors').textContent.split('\n').filter(Boolean).slice(-9);
    lines.push(`${new Date().toLocaleTimeString()}  ${text}`);
    $('errors').textContent = lines.join('\n');
  };

  video.addEventListener('playing', () => state('playing'));
  video.addEventListener('pause', () => state('paused'));
  video.addEventListener('ended', () => state('ended'));
  video.addEventListener('waiting', () => {
    if (video.currentTime > 0) $('stalls').textContent = String(++stalls);
    state('waiting');
  });

  setInterval(() => {
    if (hls && hls.latency) $('latency').textContent = `${hls.latency.toFixed(1)} s`;
    const b = video.buffered;
    const ahead = b.length ? Math.max(0, b.end(b.length - 1) - video.currentTime) : 0;
    $('buffer').textContent = `${ahead.toFixed(1)} s`;
    if (video.videoWidth) $('level').textContent = `${video.videoWidth}×${video.videoHeight}`;
  }, 500);

  // A stream that is not live yet answers 503: ask until it is.
  async function begin() {
    for (;;) {
      let status = 0;
      try {
        status = (await fetch(master, { method: 'HEAD' })).status;
      } catch (e) {
        report(`router not reached: ${e.message}`);
      }
      if (status === 200) return play();
      state(status === 404 ? 'no such stream' : 'not live yet');
      await new Promise((done) => setTimeout(done, 1000));
    }
  }

  function play() {
    if (!window.Hls || !Hls.isSupported()) {
      if (video.canPlayType('application/vnd.apple.mpegurl')) {
        video.src = master;
        return;
      }
      state('cannot play');
      report(window.Hls ? 'this browser has no media source extensions'
        : 'the router has no hls.min.js: set its web directory');
      return;
    }
    hls = new Hls();
    hls.on(Hls.Events.ERROR, (_, data) => {
      report(`${data.type}: ${data.details}${data.fatal ? ' (fatal)' : ''}`);
      if (!data.fatal) return;
      hls.destroy();
      hls = null;
      state('starting again');
      setTimeout(begin, 1000);
    });
    hls.on(Hls.Events.MANIFEST_PARSED, () => video.play().catch((e) => report(e.message)));
    hls.loadSource(master);
    hls.attachMedia(video);
  }

  begin();
})();
