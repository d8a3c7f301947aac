# shellcheck shell=bash
# Consul's and Nomad's access control, from nothing: no step needs a person. Each step can be run again.
: "${state:?}" "${top:?}"

# there COMMAND…: what "create" says of a thing that is there already is no error.
there() {
  local said
  said=$("$@" 2>&1) || case $said in
    *"already exists"* | *"already in use"* | *"Provided SecretID is already"*) ;;
    *) die "$* failed: $said" ;;
  esac
}

consul_tokens() {
  local policy host
  [ ! -e "$state/secrets/consul.done" ] || return 0
  say "making Consul's policies and tokens"
  for policy in "$top"/consul/policies/*.hcl; do
    policy=$(basename "$policy" .hcl)
    there consul acl policy create -name="dionysia-$policy" -rules="@$top/consul/policies/$policy.hcl"
  done
  # Tasks log in by Nomad's word, and get the role of their job.
  for policy in worker ingest edge; do
    there consul acl role create -name="dionysia-$policy" -policy-name="dionysia-$policy"
  done
  for host in "${all_hosts[@]}"; do
    there consul acl token create -description="agent of $host" -secret="$(secret "consul.agent.$host" uuid)" \
      -node-identity="$host:dc1"
  done
  there consul acl token create -description="DNS of every agent" -secret="$(secret consul.dns uuid)" \
    -templated-policy=builtin/dns
  for policy in server client; do
    there consul acl token create -description="Nomad's ${policy}s" -secret="$(secret "consul.nomad.$policy" uuid)" \
      -policy-name=dionysia-nomad-client -policy-name="dionysia-nomad-$policy"
  done
  there consul acl token create -description="people" -secret="$(secret consul.operator uuid)" -policy-name=dionysia-operator
  touch "$state/secrets/consul.done"
}

nomad_bootstrap() {
  [ ! -e "$state/secrets/nomad.done" ] || return 0
  secret nomad.token uuid >/dev/null
  await 30 "Nomad's access control" nomad_bootstrapped
  touch "$state/secrets/nomad.done"
}

nomad_bootstrapped() {
  nomad acl token self || on server "$DIONYSIA_NOMAD" acl bootstrap "$state/secrets/nomad.token"
}

# What the jobs' own identities may do in Nomad, beside reading their variables: nomad/policies/JOB.hcl.
nomad_policies() {
  local policy job
  for policy in "$top"/nomad/policies/*.hcl; do
    job=$(basename "$policy" .hcl)
    nomad acl policy apply -namespace default -job "$job" -description="the job $job" "dionysia-$job" "$policy" \
      >"$state/log/policies.log" 2>&1 || die "giving the job $job its policy failed: $(cat "$state/log/policies.log")"
  done
}

# Consul takes Nomad's word for what a task or a service is: it fetches Nomad's public keys, and a login
# gives the service's own identity, or the role that is named like the job.
workload_identities() {
  [ ! -e "$state/secrets/identities.done" ] || return 0
  cat >"$state/auth-method.json" <<'EOT'
{
  "JWKSURL": "http://127.0.0.1:4646/.well-known/jwks.json",
  "JWTSupportedAlgs": ["RS256"],
  "BoundAudiences": ["consul.io"],
  "ClaimMappings": {
    "nomad_namespace": "nomad_namespace",
    "nomad_job_id": "nomad_job_id",
    "nomad_task": "nomad_task",
    "nomad_service": "nomad_service"
  }
}
EOT
  await 30 "Consul knowing Nomad's keys" auth_method
  there consul acl binding-rule create -method=nomad-workloads -description="services that Nomad registers" \
    -bind-type=service -bind-name="\${value.nomad_service}" -selector='"nomad_service" in value'
  there consul acl binding-rule create -method=nomad-workloads -description="tasks, by their job" \
    -bind-type=role -bind-name="dionysia-\${value.nomad_job_id}" -selector='"nomad_service" not in value'
  touch "$state/secrets/identities.done"
}

auth_method() {
  consul acl auth-method read -name=nomad-workloads ||
    consul acl auth-method create -type=jwt -name=nomad-workloads -description="Nomad's workloads" \
      -config="@$state/auth-method.json"
}
