package store

// Every key begins with "dionysia:". State is fsynced at each write and never
// evicted; live may be lost at any time and fills again.
//
//	state
//	  stream:<id>                 hash json, key (hash), version, profile
//	  streams                     zset of ids, all of score 0: pages in order of ids
//	  deleted-streams             hash id → second of its deletion; without those created again;
//	                              kept for a week at least
//	  profile:<name>              hash json, version
//	  profiles                    zset of names
//	  profile-streams:<name>      set of the streams that refer to it
//	  broadcast:<stream>          json
//	  placement:<stream>          hash epoch, state, worker, device, reserved, limits, json, source, committed, ended;
//	                              what the hash holds wins over the json
//	  epochs                      hash stream → highest epoch ever given; never shrinks
//	  numbers                     hash stream → bound at or above the highest number made public
//	  ledger:<worker>:<resource>  hash stream → "<amount> <ms>", ms when it was last raised
//	  ledger-resources:<worker>   set of the resources that have, or have had, a reservation
//	  ledger-workers              set of the workers that have, or have had, one
//	  ledger-feed                 stream, capped: worker, resource, stream, amount (0 for gone), ms
//	  worker-streams:<worker>     set of streams placed on it and not ended
//	  active                      set of streams with a placement not ended
//	  origins:<stream>            hash epoch → "worker until-ms", 0 for the current one
//	  lease:<name>, lease-tokens  the holder; hash name → fencing number
//	  drains                      hash worker → json: the workers that operators drain
//	  generation                  random, made with the database
//	live
//	  events:<stream>             stream, capped
//	  claim:<stream>              hash node, conn, protocol, remote, session; expires
//	  ingest:<node>, ingest-nodes, ingest-paths:<node>
//	  report:<worker>, workers    "<arrival µs> <json>"; set
//	  status:<stream>             hash epoch, json
//	  tail:<stream>               hash fence, broadcast, last, lastof, ended
//	  tail-list:<stream>          list of segments, json
//	  tail-runs:<stream>          hash run id → json
//	  notify                      channel of stream ids
const prefix = "dionysia:"

const (
	keyStreams       = prefix + "streams"
	keyDeleted       = prefix + "deleted-streams"
	keyProfiles      = prefix + "profiles"
	keyEpochs        = prefix + "epochs"
	keyNumbers       = prefix + "numbers"
	keyActive        = prefix + "active"
	keyLedgerFeed    = prefix + "ledger-feed"
	keyLedgerWorkers = prefix + "ledger-workers"
	keyLeaseTokens   = prefix + "lease-tokens"
	keyGeneration    = prefix + "generation"
	keyDrains        = prefix + "drains"
	keyIngestNodes   = prefix + "ingest-nodes"
	keyWorkers       = prefix + "workers"
	keyNotify        = prefix + "notify"
	preProfileStream = prefix + "profile-streams:"
	preWorkerStreams = prefix + "worker-streams:"
	preClaim         = prefix + "claim:"
)

func key(kind, id string) string { return prefix + kind + ":" + id }

// tailKeys are the keys of the tail scripts.
func tailKeys(id string) []string {
	return []string{key("tail", id), key("tail-list", id), key("tail-runs", id)}
}
