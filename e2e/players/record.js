'use strict'
// Records how a <video> plays and posts it to the test every half second.
const params = new URLSearchParams(location.search)

const record = {
  player: '', started: false, ended: false, current: 0, duration: 0, ahead: 0, minAhead: null, width: 0, height: 0,
  frames: 0, dropped: 0, colours: 0, changes: 0, played: 0, elapsed: 0,
  stalls: [], jumps: [], errors: [], fatal: [], events: [], levels: [], latency: null, samples: [],
}

// A tick is 100 ms. Time that stands still for longer than STALL is a stall;
// moving on by JUMP more than the wall clock did, or backwards, is a jump.
const STALL = 300, JUMP = 0.4
const since = performance.now()
const now = () => (performance.now() - since) / 1000
const note = (list, what) => { if (list.length < 200) list.push(Object.assign({ at: +now().toFixed(2) }, what)) }
const fail = (message) => note(record.fatal, { message: String(message) })

window.addEventListener('error', e => fail(e.message))
window.addEventListener('unhandledrejection', e => fail(e.reason))

function ahead(video) {
  const t = video.currentTime
  for (let i = 0; i < video.buffered.length; i++) {
    if (t >= video.buffered.start(i) - 0.1 && t <= video.buffered.end(i)) return video.buffered.end(i) - t
  }
  return 0
}

function watchPicture(video) {
  const canvas = document.createElement('canvas')
  canvas.width = 32; canvas.height = 18
  const ctx = canvas.getContext('2d', { willReadFrequently: true })
  let last = ''
  setInterval(() => {
    if (!video.videoWidth) return
    ctx.drawImage(video, 0, 0, 32, 18)
    const data = ctx.getImageData(0, 0, 32, 18).data, seen = new Set()
    for (let i = 0; i < data.length; i += 4) seen.add((data[i] >> 5) << 6 | (data[i + 1] >> 5) << 3 | data[i + 2] >> 5)
    const text = data.join()
    if (text !== last) record.changes++
    last = text
    record.colours = seen.size
  }, 500)
}

function watch(video, name) {
  record.player = name
  for (const type of ['waiting', 'stalled', 'playing', 'seeking', 'seeked', 'ended', 'pause', 'error']) {
    video.addEventListener(type, () => note(record.events, { type, t: +video.currentTime.toFixed(2) }))
  }
  video.addEventListener('error', () => fail('video element: ' + (video.error && video.error.message)))
  let at = performance.now(), t = 0, stuck = 0, samples = 0
  setInterval(() => {
    const n = performance.now(), dt = (n - at) / 1000, ct = video.currentTime, moved = ct - t
    const free = !video.paused && !video.ended
    if (!record.started && ct > 0 && moved > 0 && moved < 0.5 && video.readyState >= 3) { record.started = true; record.startedAt = now() }
    if (record.started && free) {
      record.elapsed += dt
      record.played += Math.max(0, moved)
      if (moved < -0.05 || moved > dt + JUMP) note(record.jumps, { from: +t.toFixed(3), to: +ct.toFixed(3) })
      if (Math.abs(moved) < 0.005) { stuck += dt * 1000 } else {
        if (stuck > STALL) note(record.stalls, { seconds: +(stuck / 1000).toFixed(2), t: +ct.toFixed(2) })
        stuck = 0
      }
      const a = ahead(video)
      record.ahead = a
      if (record.elapsed > 3 && (record.minAhead === null || a < record.minAhead)) record.minAhead = a
      if (++samples % 10 === 0 && record.samples.length < 600) record.samples.push([+now().toFixed(1), +ct.toFixed(2), +a.toFixed(2)])
    }
    record.stuck = stuck / 1000
    record.current = ct
    record.ended = video.ended
    record.width = video.videoWidth; record.height = video.videoHeight
    const q = video.getVideoPlaybackQuality && video.getVideoPlaybackQuality()
    if (q) { record.frames = q.totalVideoFrames; record.dropped = q.droppedVideoFrames }
    at = n; t = ct
  }, 100)
  watchPicture(video)
}

setInterval(() => {
  fetch('/report/' + encodeURIComponent(params.get('id')), { method: 'POST', body: JSON.stringify(record) }).catch(() => {})
}, 500)
