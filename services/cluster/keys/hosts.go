package keys

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
)

// ErrInput says that what was asked for can't be; nothing was written.
var ErrInput = errors.New("invalid input")

// inputError is an ErrInput that says only what is wrong.
type inputError string

func (e inputError) Error() string { return string(e) }

// Is implements errors.Is.
func (inputError) Is(target error) bool { return target == ErrInput }

func invalid(format string, a ...any) error { return inputError(fmt.Sprintf(format, a...)) }

// Roles are what a host may run, in the words of the job files' constraint.
func Roles() []string { return []string{"redis", "api", "ingest", "worker", "router", "edge"} }

// Host is one machine of the cluster.
type Host struct {
	// Name is its name in Consul and Nomad, and its worker's id: a lowercase DNS label.
	Name string `json:"name"`
	// IP is its address in the cluster, as the others reach it.
	IP netip.Addr `json:"ip"`
	// Server says that Consul's and Nomad's servers run there.
	Server bool `json:"server,omitempty"`
	// Roles are what may run there, in the order of Roles().
	Roles []string `json:"roles,omitempty"`
}

// ParseHost reads NAME=IP[,server][,ROLE…].
func ParseHost(s string) (Host, error) {
	name, rest, ok := strings.Cut(s, "=")
	if !ok {
		return Host{}, invalid("host %q is not NAME=IP[,server][,ROLE…]", s)
	}
	words := strings.Split(rest, ",")
	ip, err := netip.ParseAddr(words[0])
	if err != nil {
		return Host{}, invalid("host %s: address: %q is not an IP address", name, words[0])
	}
	h := Host{Name: name, IP: ip}
	for _, word := range words[1:] {
		switch {
		case word == "server" && !h.Server:
			h.Server = true
		case slices.Contains(Roles(), word) && !slices.Contains(h.Roles, word):
			h.Roles = append(h.Roles, word)
		case word == "server" || slices.Contains(Roles(), word):
			return Host{}, invalid("host %s: role: %s is named twice", name, word)
		default:
			return Host{}, invalid("host %s: role: there is no %q, only server, %s", name, word, strings.Join(Roles(), ", "))
		}
	}
	slices.SortFunc(h.Roles, func(a, b string) int { return slices.Index(Roles(), a) - slices.Index(Roles(), b) })
	return h, h.check()
}

// String is what ParseHost reads.
func (h Host) String() string {
	words := []string{h.Name + "=" + h.IP.String()}
	if h.Server {
		words = append(words, "server")
	}
	return strings.Join(append(words, h.Roles...), ",")
}

// label is a DNS label in lowercase, RFC 1123.
var label = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

func (h Host) check() error {
	switch {
	case !label.MatchString(h.Name):
		return invalid("host %q: name: not a DNS label: 1 to 63 of a-z, 0-9 and -, with no - at either end", h.Name)
	case !h.IP.IsValid():
		return invalid("host %s: address: missing", h.Name)
	case h.IP.IsUnspecified() || h.IP.IsMulticast() || h.IP.Zone() != "" || h.IP.Is4In6():
		return invalid("host %s: address: %s is not one that other hosts can reach", h.Name, h.IP)
	case !h.Server && len(h.Roles) == 0:
		return invalid("host %s: role: none: say what runs there: server, %s", h.Name, strings.Join(Roles(), ", "))
	}
	return nil
}

// Cluster is what is known of a cluster beside its keys; it is kept in the
// folder, as cluster.json.
type Cluster struct {
	Datacenter string `json:"datacenter"`
	Region     string `json:"region"` // Nomad's
	// HTTPS says that the agents' HTTP is on the hosts' addresses too, with TLS.
	HTTPS bool `json:"https"`
	// Etc is the folder on the hosts where consul.d and nomad.d will lie.
	Etc   string `json:"etc"`
	Hosts []Host `json:"hosts"`
}

// Servers are the hosts that run Consul's and Nomad's servers.
func (c *Cluster) Servers() []Host {
	return slices.DeleteFunc(slices.Clone(c.Hosts), func(h Host) bool { return !h.Server })
}

// put adds a host, or changes the one of that name.
func (c *Cluster) put(h Host) {
	if i := slices.IndexFunc(c.Hosts, func(o Host) bool { return o.Name == h.Name }); i >= 0 {
		c.Hosts[i] = h
		return
	}
	c.Hosts = append(c.Hosts, h)
}

var folderPath = regexp.MustCompile(`^(/[A-Za-z0-9._-]+)+$`)

func (c *Cluster) check() error {
	if !label.MatchString(c.Datacenter) {
		return invalid("datacenter: %q is not a DNS label: 1 to 63 of a-z, 0-9 and -", c.Datacenter)
	}
	if !label.MatchString(c.Region) {
		return invalid("region: %q is not a DNS label: 1 to 63 of a-z, 0-9 and -", c.Region)
	}
	if !folderPath.MatchString(c.Etc) {
		return invalid("etc: %q is not an absolute path of letters, digits, '.', '_' and '-'", c.Etc)
	}
	at := map[netip.Addr]string{}
	for _, h := range c.Hosts {
		if err := h.check(); err != nil {
			return err
		}
		if other, ok := at[h.IP]; ok {
			return invalid("host %s: address: %s is host %s's already", h.Name, h.IP, other)
		}
		at[h.IP] = h.Name
	}
	if err := c.checkTogether(); err != nil {
		return err
	}
	switch n := len(c.Servers()); {
	case n == 0:
		return invalid("hosts: none is a server: name one, three or five, as in --host s1=10.0.0.1,server")
	case n%2 == 0:
		return invalid("hosts: %d servers survive the loss of %d, as %d would, and are one more to lose: name an odd number of them", n, (n-1)/2, n-1)
	case n > 7:
		return invalid("hosts: %d servers: each write waits for most of them; three or five are enough, seven the most", n)
	}
	return nil
}

// checkTogether refuses hosts that are right each alone, but not beside each other.
func (c *Cluster) checkTogether() error {
	redis := ""
	for _, h := range c.Hosts {
		if h.IP.IsLoopback() != c.Hosts[0].IP.IsLoopback() {
			if !h.IP.IsLoopback() {
				h = c.Hosts[0]
			}
			return invalid("host %s: address: %s is not one that the other hosts can reach", h.Name, h.IP)
		}
		if !slices.Contains(h.Roles, "redis") {
			continue
		}
		if redis != "" {
			return invalid("host %s: role: redis is on host %s already, with its data: Nomad could start it on either", h.Name, redis)
		}
		redis = h.Name
	}
	return nil
}

// unrun are the roles that a cluster can't do without and no host has.
func (c *Cluster) unrun() []string {
	return slices.DeleteFunc(Roles(), func(role string) bool {
		return role == "edge" || slices.ContainsFunc(c.Hosts, func(h Host) bool { return slices.Contains(h.Roles, role) })
	})
}

// merge is the cluster as it was, nil for none, with what is asked for now.
func merge(was *Cluster, o Options) (*Cluster, error) {
	c := &Cluster{Datacenter: "dc1", Region: "global", Etc: "/etc"}
	if was != nil {
		*c = *was
		c.Hosts = slices.Clone(was.Hosts)
	}
	for _, f := range []struct {
		name     string
		was, now string
		field    *string
	}{
		{"datacenter", c.Datacenter, o.Datacenter, &c.Datacenter},
		{"region", c.Region, o.Region, &c.Region},
	} {
		if f.now == "" {
			continue
		}
		if was != nil && f.now != f.was {
			return nil, invalid("%s: it is %s, and certificates and tokens name it; %s would be another cluster, in a folder of its own", f.name, f.was, f.now)
		}
		*f.field = f.now
	}
	if o.Etc != "" {
		c.Etc = o.Etc
	}
	if o.HTTPS != nil {
		c.HTTPS = *o.HTTPS
	}
	named := map[string]bool{}
	for _, h := range o.Hosts {
		if named[h.Name] {
			return nil, invalid("host %s: name: given twice", h.Name)
		}
		named[h.Name] = true
		c.put(h)
	}
	return c, c.check()
}
