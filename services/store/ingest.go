package store

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
)

// Claim says who publishes a stream.
type Claim struct {
	Node     string `json:"node"`     // ingest node id
	Conn     string `json:"conn"`     // connection id, as mediamtx's auth call names it
	Protocol string `json:"protocol"` // rtmp, rtsp, srt, webrtc
	Remote   string `json:"remote"`
}

// IngestReport is everything that an ingest node has at one moment.
type IngestReport struct {
	Node string `json:"node"`
	Boot string `json:"boot"`
	// RTMP and RTSP are host:port, as workers reach them.
	RTMP  string       `json:"rtmp"`
	RTSP  string       `json:"rtsp"`
	Time  time.Time    `json:"time"` // the node's clock
	Paths []IngestPath `json:"paths"`
}

// IngestPath is one path of a node's mediamtx.
type IngestPath struct {
	Stream        string    `json:"stream"`
	Session       string    `json:"session"` // mediamtx's id of the source
	Protocol      string    `json:"protocol"`
	Remote        string    `json:"remote"`
	Ready         bool      `json:"ready"`
	Tracks        []string  `json:"tracks"` // mediamtx's codec names
	BytesReceived uint64    `json:"bytes_received"`
	ReadySince    time.Time `json:"ready_since"`
}

// ClaimPublish takes the stream for one publisher: a compare-and-set. It is
// ErrBusy while another connection holds it, unless takeover is set, which the
// caller does only when that one is known to be silent. The claim expires
// after ReportTTL unless reports with the stream's path refresh it.
func (s *Store) ClaimPublish(ctx context.Context, id string, c Claim, takeover bool) error {
	over := "0"
	if takeover {
		over = "1"
	}
	if _, err := s.run(ctx, s.live, "claim_take", []string{key("claim", id)},
		c.Node, c.Conn, c.Protocol, c.Remote, over, ReportTTL.Milliseconds()); err != nil {
		return fmt.Errorf("claiming stream %s: %w", id, err)
	}
	return nil
}

// ReleaseClaim releases the claim if this connection holds it; conn is the id of
// the connection or of the session. Otherwise it does nothing.
func (s *Store) ReleaseClaim(ctx context.Context, id, node, conn string) error {
	if _, err := s.run(ctx, s.live, "claim_release", []string{key("claim", id)}, node, conn); err != nil {
		return fmt.Errorf("releasing the claim of stream %s: %w", id, err)
	}
	return nil
}

// PutIngestReport stores a node's report for ReportTTL, refreshes the claims of
// the publishers in it and releases those of publishers that left since the
// node's last report.
func (s *Store) PutIngestReport(ctx context.Context, r IngestReport) error {
	b, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encoding the report of node %s: %w", r.Node, err)
	}
	ttl := ReportTTL.Milliseconds()
	args := []any{r.Node, b, ttl, ttl, preClaim}
	for _, p := range r.Paths {
		if p.Ready {
			args = append(args, p.Stream, p.Session, p.Protocol, p.Remote)
		}
	}
	if _, err := s.run(ctx, s.live, "ingest_put",
		[]string{key("ingest", r.Node), keyIngestNodes, key("ingest-paths", r.Node)}, args...); err != nil {
		return fmt.Errorf("writing the report of node %s: %w", r.Node, err)
	}
	return nil
}

// IngestReports returns the reports that have not expired, by node.
func (s *Store) IngestReports(ctx context.Context) ([]IngestReport, error) {
	list := []IngestReport{}
	err := s.indexed(ctx, keyIngestNodes, "ingest", func(node, raw string) error {
		var r IngestReport
		if err := json.Unmarshal([]byte(raw), &r); err != nil {
			return fmt.Errorf("decoding the report of node %s: %w", node, err)
		}
		list = append(list, r)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading the ingest reports: %w", err)
	}
	return list, nil
}

// Publishing returns the streams that an ingest node has a ready publisher of, by the
// reports that have not expired: what IngestReports say of it, at a fraction of the
// bytes. A stream that two nodes have is there twice.
func (s *Store) Publishing(ctx context.Context) ([]string, error) {
	nodes, err := s.live.SMembers(ctx, keyIngestNodes).Result()
	if err != nil {
		return nil, fmt.Errorf("listing the ingest nodes: %w", err)
	}
	ids := []string{}
	if len(nodes) == 0 {
		return ids, nil
	}
	cmds := make([]*redis.StringSliceCmd, len(nodes))
	if _, err := s.live.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, node := range nodes {
			cmds[i] = p.HKeys(ctx, key("ingest-paths", node))
		}
		return nil
	}); err != nil {
		return nil, fmt.Errorf("reading the publishers of %d ingest nodes: %w", len(nodes), err)
	}
	for _, c := range cmds {
		ids = append(ids, c.Val()...)
	}
	return ids, nil
}
