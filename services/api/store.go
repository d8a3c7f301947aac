package api

import (
	"context"

	"github.com/dionysia-dev/dionysia/services/store"
	"github.com/dionysia-dev/dionysia/services/stream"
)

// Store is what the api needs of services/store.
type Store interface {
	CreateStream(ctx context.Context, s stream.Stream, keyHash string) error
	GetStream(ctx context.Context, id string) (stream.Stream, error)
	ListStreams(ctx context.Context, after string, limit int) (streams []stream.Stream, next string, err error)
	UpdateStream(ctx context.Context, s stream.Stream) (stream.Stream, error)
	DeleteStream(ctx context.Context, id string) error
	DeleteLost(ctx context.Context, id string) error
	SetStreamKey(ctx context.Context, id, keyHash string) error
	StreamKeyHash(ctx context.Context, id string) (string, error)

	PutProfile(ctx context.Context, p stream.Profile) (stream.Profile, error)
	GetProfile(ctx context.Context, name string) (stream.Profile, error)
	ListProfiles(ctx context.Context) ([]stream.Profile, error)
	DeleteProfile(ctx context.Context, name string) error

	AddEvent(ctx context.Context, e stream.Event) error
	// Events returns those after the id, or the newest when it is "".
	Events(ctx context.Context, id, after string, limit int) ([]stream.Event, error)

	ClaimPublish(ctx context.Context, id string, c store.Claim, takeover bool) error
	ReleaseClaim(ctx context.Context, id, node, conn string) error
	PutIngestReport(ctx context.Context, r store.IngestReport) error

	Reports(ctx context.Context) ([]store.ReportSeen, error)
	PutDrain(ctx context.Context, worker string, d store.Drain) error
	DeleteDrain(ctx context.Context, worker string) (had bool, err error)
	Ledger(ctx context.Context, worker string) (map[string]map[string]store.Held, error)
	NewLedgers() *store.Ledgers
	Publishing(ctx context.Context) ([]string, error)
	ActiveStreams(ctx context.Context) ([]string, error)
	// States, Statuses and NewestEvents read of many streams at once what Broadcast,
	// Placement, Status and Events read of one.
	States(ctx context.Context, ids []string, broadcast func(id string) bool) (list []store.State, generation string, err error)
	Statuses(ctx context.Context, ids []string) (map[string]stream.RunStatus, error)
	NewestEvents(ctx context.Context, ids []string, limit int) (map[string][]stream.Event, error)
	Broadcast(ctx context.Context, id string) (stream.Broadcast, error)
	Placement(ctx context.Context, id string) (stream.Placement, error)
	Status(ctx context.Context, id string) (stream.RunStatus, error)

	Notify(ctx context.Context, id string) error
	Ping(ctx context.Context) error
}
