// Package nomad follows the nodes of a Nomad cluster: which of them drain or are
// ineligible, and which are down. Nothing needs it; where there is no Nomad, or it
// is away, Dionysia works by what its own workers report.
package nomad

import (
	"context"
	"fmt"
	"net/url"
	"time"

	"github.com/hashicorp/nomad/api"
)

// Off as an address uses no Nomad.
const Off = "off"

// Options say how Nomad is reached. What they leave out is taken from NOMAD_ADDR,
// NOMAD_TOKEN, NOMAD_CACERT, NOMAD_CLIENT_CERT and the rest that Nomad's own
// command takes.
type Options struct {
	// Addr is a URL, such as https://127.0.0.1:4646 or unix:///secrets/api.sock.
	Addr string
	// Token returns the ACL token for each request, for one that is renewed; nil
	// is the environment's.
	Token func() (string, error)
}

// CheckAddr says what is wrong with an address, in words of its own: of host:4646 the
// host would be taken for the scheme.
func CheckAddr(addr string) error {
	u, err := url.Parse(addr)
	if err == nil && ((u.Scheme == "http" || u.Scheme == "https") && u.Host != "" || u.Scheme == "unix" && u.Path != "") {
		return nil
	}
	return fmt.Errorf("%q is not a URL such as http://127.0.0.1:4646 or unix:///secrets/api.sock, nor %q", addr, Off)
}

// timeout bounds each request that is not a stream.
const timeout = 5 * time.Second

// view is what a Follower needs of Nomad's client.
type view interface {
	nodes(ctx context.Context) ([]*api.NodeListStub, error)
	events(ctx context.Context) (<-chan *api.Events, error)
}

// Client is a view of Nomad's client.
type Client struct {
	api   *api.Client
	token func() (string, error)
}

// NewClient sends nothing yet. Addr is to pass CheckAddr.
func NewClient(o Options) (*Client, error) {
	conf := api.DefaultConfig()
	if o.Addr != "" {
		conf.Address = o.Addr
	}
	c, err := api.NewClient(conf)
	if err != nil {
		return nil, fmt.Errorf("nomad at %s: %w", conf.Address, err)
	}
	return &Client{api: c, token: o.Token}, nil
}

// API is Nomad's own client.
func (c *Client) API() *api.Client { return c.api }

// Query are the options of a read: any server may answer, so that a follower works
// while there is no leader.
func (c *Client) Query(ctx context.Context) (*api.QueryOptions, error) {
	q := &api.QueryOptions{AllowStale: true}
	if c.token != nil {
		token, err := c.token()
		if err != nil {
			return nil, err
		}
		q.AuthToken = token
	}
	return q.WithContext(ctx), nil
}

func (c *Client) nodes(ctx context.Context) ([]*api.NodeListStub, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	q, err := c.Query(ctx)
	if err != nil {
		return nil, err
	}
	list, _, err := c.api.Nodes().List(q)
	if err != nil {
		return nil, fmt.Errorf("listing Nomad's nodes: %w", err)
	}
	return list, nil
}

// events subscribes to what happens to nodes, and to allocations of the client's own
// namespace (NOMAD_NAMESPACE), from now on. For "*" Nomad wants read-job in every
// namespace that there is.
func (c *Client) events(ctx context.Context) (<-chan *api.Events, error) {
	q, err := c.Query(ctx)
	if err != nil {
		return nil, err
	}
	ch, err := c.api.EventStream().Stream(ctx, map[api.Topic][]string{api.TopicNode: {"*"}, api.TopicAllocation: {"*"}}, 0, q)
	if err != nil {
		return nil, fmt.Errorf("following Nomad's events: %w", err)
	}
	return ch, nil
}
