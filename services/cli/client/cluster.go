package client

// ClusterCmd is `dionysia cluster`: the cluster that Nomad and Consul run, as a whole.
type ClusterCmd struct {
	Init      ClusterInitCmd      `cmd:"" help:"Make the keys, certificates and tokens of a cluster, and each host's files."`
	Bootstrap ClusterBootstrapCmd `cmd:"" help:"Apply access control and secrets to Consul and Nomad, by the keys that init made."`
	Status    ClusterStatusCmd    `cmd:"" help:"Show Nomad's nodes, what runs on them, whether it is healthy, and what it holds."`
}
