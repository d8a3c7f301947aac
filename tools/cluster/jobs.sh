# shellcheck shell=bash
# Dionysia on the cluster: jobs, the forwarder, the test picture.
: "${state:?}" "${top:?}" "${port:?}"

# job_vars JOB: what this cluster sets of a job's variables.
job_vars() {
  local vars=()
  case $1 in
    redis) vars=(redis_server="$DIONYSIA_REDIS_SERVER" data_dir=/srv/redis memory_mib=128) ;;
    api) vars=(dionysia="$state/bin/dionysia") ;;
    ingest) vars=(dionysia="$state/bin/dionysia" mediamtx="$DIONYSIA_MEDIAMTX") ;;
    worker) vars=(dionysia="$state/bin/dionysia" gpac="$DIONYSIA_GPAC" data_dir=/srv/dionysia
      cpu_capacity="${DIONYSIA_CPU_CAPACITY:-0}" cpu_mhz=200 memory_mib=512 linger="${DIONYSIA_WORKER_LINGER:-30s}") ;;
    router) vars=(dionysia="$state/bin/dionysia" consul_dns=127.0.0.1:53 cache_mib=64 web_dir="${DIONYSIA_WEB_DIR:-}") ;;
    edge) vars=(nginx="$DIONYSIA_NGINX" role=edge count=2 cache_dir=/srv/edge cache_mib=256) ;;
  esac
  printf -- '-var=%s\n' "${vars[@]}"
}

job() { # VERB JOB…: nomad job VERB
  local vars
  mapfile -t vars < <(job_vars "$2")
  nomad job "$1" "${vars[@]}" "${@:3}" "$top/nomad/jobs/$2.nomad.hcl"
}

job_run() { # JOB: returns when it is healthy, as far as Nomad follows it
  job run "$1" >"$state/log/job-$1.log" 2>&1 || {
    cat "$state/log/job-$1.log" >&2
    die "the job $1 did not become healthy"
  }
}

# passing SERVICE COUNT: so many instances pass all their checks, says Consul.
passing() {
  local n
  n=$(consul watch -type=service -service="$1" -passingonly=true | grep -c '"Service": {' || true)
  [ "$n" -ge "$2" ] || { echo "$n of $2 instances of $1 pass" >&2 && return 1; }
}

# How many of each service there are, as Consul knows them.
instances=(redis-state:1 redis-live:1 api:1 ingest:1 mediamtx:1 worker:2 origin:2 router:2 edge:2)

jobs_up() {
  local job want running=()
  say "running the jobs"
  job_run redis
  for job in api worker router ingest edge; do
    job_run "$job" &
    running+=($!)
  done
  for job in "${running[@]}"; do
    wait "$job" || die "not every job runs"
  done
  for want in "${instances[@]}"; do
    await 90 "$want" passing "${want%:*}" "${want#*:}"
  done
  forward_up
}

# where SERVICE: host:port of each instance that passes, one a line.
where() {
  consul watch -type=service -service="$1" -passingonly=true | awk '
    /"Service": \{/ { address = at = ""; inside = 1 }
    inside && /"Address":/ && address == "" { gsub(/[",]/, ""); address = $2 }
    inside && /"Port":/ && at == "" { gsub(/,/, ""); at = $2 }
    inside && address != "" && at != "" { print address ":" at; inside = 0 }'
}

forward_up() {
  local ns
  (cd "$top" && go build -o "$state/bin/forward.new" ./tools/forward)
  mv "$state/bin/forward.new" "$state/bin/forward"
  ns=$(netns server)
  listen() { echo "127.0.0.1:$((port + $1))=$ns,$2"; }
  stop forward TERM # the instances may be others by now
  : >"$state/log/forward.log"
  background forward "$state/bin/forward" \
    "$(listen 0 "$(address server):8080,$(address ingest):8080")" "$(listen 1 "$(where edge | paste -sd,)")" \
    "$(listen 2 "$(where router | paste -sd,)")" "$(listen 3 "$(where ingest | paste -sd,)")" \
    "$(listen 4 127.0.0.1:8500)" "$(listen 5 127.0.0.1:4646)"
  await 10 "the forwarder" test -s "$state/log/forward.log"
}

dionysia() { on server env DIONYSIA_API="http://$(where api | head -n 1)" DIONYSIA_TOKEN_FILE="$state/secrets/admin.token" "$state/bin/dionysia" "$@"; }

# The test picture, sent from the server's host to an ingest agent's. ffmpeg reads the key from a file.
picture_up() {
  local key clock entry
  ! running picture >/dev/null || return 0
  key=$(dionysia stream create demo --profile 360p -o json 2>/dev/null | sed -n 's/.*"key": *"\([^"]*\)".*/\1/p') || true
  [ -n "$key" ] || key=$(dionysia stream rotate-key demo -o json | sed -n 's/.*"key": *"\([^"]*\)".*/\1/p')
  printf 'rtmp_playpath=demo?key=%s\n' "$key" | private "$state/secrets/demo.ffpreset"
  clock="drawtext=text='%{localtime\\:%H\\\\\\:%M\\\\\\:%S}':fontsize=48:fontcolor=white:box=1:boxcolor=black@0.6:boxborderw=8:x=(w-tw)/2:y=h-th-32"
  into server
  background picture "${entry[@]}" "$DIONYSIA_FFMPEG" \
    -hide_banner -loglevel warning -nostdin -re -f lavfi -i "testsrc2=size=640x360:rate=25,$clock" \
    -f lavfi -i sine=frequency=440:beep_factor=4:sample_rate=48000 \
    -c:v libx264 -preset ultrafast -tune zerolatency -pix_fmt yuv420p -b:v 800k -maxrate 800k -bufsize 800k \
    -g 50 -keyint_min 50 -sc_threshold 0 -c:a aac -b:a 96k -ac 2 \
    -fpre "$state/secrets/demo.ffpreset" -f flv "rtmp://$(where ingest | head -n 1)/live"
}
