package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/dionysia-dev/dionysia/services/capacity"
	"github.com/dionysia-dev/dionysia/services/stream"
)

// maxAmount is the most that Lua's numbers hold exactly.
const maxAmount = 1<<53 - 1

// Held is what a stream holds of a resource.
type Held struct {
	Amount int64 // in the resource's unit
	// At is when it was reserved or last raised, by Redis' clock, to the ms.
	At time.Time
}

// NoRoomError says which resource has no room for a reservation, with the
// numbers, all in the resource's unit. It wraps stream.ErrNoRoom.
type NoRoomError struct {
	Worker   string
	Resource string
	Needed   int64
	Limit    int64
	// Reserved is what Streams other streams hold; Young is the part of it that
	// was reserved within stream.RampHold.
	Reserved, Young int64
	Streams         int
	// Used is what was measured; nil when unknown or not asked.
	Used *int64
	// Unreadable is the stream whose entry in the resource's ledger can't be read;
	// the numbers are unknown then, and nothing fits until a repair.
	Unreadable string
}

// Error gives the numbers.
func (e *NoRoomError) Error() string {
	if e.Unreadable != "" {
		return fmt.Sprintf("%v: %s/%s: the ledger's entry of stream %s can't be read; nothing is reserved there until it is repaired",
			stream.ErrNoRoom, e.Worker, e.Resource, e.Unreadable)
	}
	unit := capacity.Unit(e.Resource)
	s := fmt.Sprintf("%s/%s: needs %d %s; of %d %s, %d are reserved by %d other streams", e.Worker, e.Resource, e.Needed, unit, e.Limit, unit, e.Reserved, e.Streams)
	if e.Used != nil {
		s += fmt.Sprintf(", %d are used and %d reserved too recently to show in that", *e.Used, e.Young)
	}
	return stream.ErrNoRoom.Error() + ": " + s
}

// Unwrap returns stream.ErrNoRoom.
func (e *NoRoomError) Unwrap() error { return stream.ErrNoRoom }

// noRoom decodes what follows NO_ROOM in a script's answer.
func noRoom(v []string) error {
	if len(v) != 8 {
		return fmt.Errorf("%w: %s", stream.ErrNoRoom, strings.Join(v, " "))
	}
	n := func(i int) int64 { x, _ := strconv.ParseInt(v[i], 10, 64); return x }
	e := &NoRoomError{Worker: v[0], Resource: v[1], Needed: n(2), Limit: n(3), Reserved: n(4), Streams: int(n(5)), Young: n(7)}
	if v[6] != "" {
		used := n(6)
		e.Used = &used
	}
	return e
}

// reservations checks what is to be reserved at a worker on a device, and encodes
// it for the scripts: the list as JSON, the limits by resource as JSON, and the
// arguments resource, amount, limit, used of each. limits may be nil where a
// script has its own.
func reservations(device string, reserved []stream.Reservation, limits []capacity.Limit) (doc, bounds []byte, args []any, err error) {
	if len(reserved) == 0 || reserved[0].Resource != device || device == "" {
		return nil, nil, nil, fmt.Errorf("reserving %v on %q: the device's own resource must be the first: %w", reserved, device, stream.ErrInvalid)
	}
	if limits != nil && len(limits) != len(reserved) {
		return nil, nil, nil, fmt.Errorf("reserving %v: %d limits for %d resources: %w", reserved, len(limits), len(reserved), stream.ErrInvalid)
	}
	byResource := make(map[string]int64, len(reserved))
	for i, r := range reserved {
		_, twice := byResource[r.Resource]
		if r.Resource == "" || twice || r.Amount < 1 || r.Amount > maxAmount {
			return nil, nil, nil, fmt.Errorf("reserving %d of %q (the %d. resource): %w", r.Amount, r.Resource, i+1, stream.ErrInvalid)
		}
		limit, used := "", ""
		byResource[r.Resource] = 0
		if limits != nil {
			l := min(max(limits[i].Limit, 0), maxAmount)
			byResource[r.Resource], limit = l, strconv.FormatInt(l, 10)
			if u := limits[i].Used; u != nil {
				used = strconv.FormatInt(min(max(*u, 0), maxAmount), 10)
			}
		}
		args = append(args, r.Resource, r.Amount, limit, used)
	}
	if doc, err = json.Marshal(reserved); err == nil {
		bounds, err = json.Marshal(byResource)
	}
	if err != nil {
		return nil, nil, nil, fmt.Errorf("encoding the reservations %v: %w", reserved, err)
	}
	return doc, bounds, args, nil
}

// Reprice sets what a placement has reserved, once its price is known: of the
// resources that it holds, or of some of them (the others are returned); the
// device's is the first. Less always fits; more only while the resource's
// reservations stay within the limit that the commit, or the last move, knew.
// Errors: ErrNotFound, ErrFenced, ErrNoRoom (a *NoRoomError); ErrConflict when the
// placement has ended, or holds no such resource.
func (s *Store) Reprice(ctx context.Context, id string, epoch uint64, reserved []stream.Reservation) error {
	device := ""
	if len(reserved) > 0 {
		device = reserved[0].Resource
	}
	doc, _, args, err := reservations(device, reserved, nil)
	if err != nil {
		return fmt.Errorf("changing the reservations of %s: %w", id, err)
	}
	if _, err := s.run(ctx, s.state, "placement_reprice", []string{key("placement", id)}, append([]any{id, epoch, doc}, args...)...); err != nil {
		return fmt.Errorf("changing the reservations of %s at epoch %d: %w", id, epoch, err)
	}
	return nil
}

// MoveDevice moves a placement to another device of its worker: its reservations
// there become these, each within its limit, and what it held is returned, in one
// step; the epoch stays. A resource's Used should not hold what the run itself
// used. Errors: ErrNotFound, ErrFenced, ErrNoRoom (a *NoRoomError); ErrConflict when
// the placement has ended.
func (s *Store) MoveDevice(ctx context.Context, id string, epoch uint64, device string, reserved []stream.Reservation, limits []capacity.Limit) error {
	return s.moveDevice(ctx, id, epoch, device, reserved, limits, "0")
}

// RecordDevice is MoveDevice for a run that is on the other device already,
// because Redis was away when it had to move: whatever the limits, it is recorded
// as it is. It never returns ErrNoRoom.
func (s *Store) RecordDevice(ctx context.Context, id string, epoch uint64, device string, reserved []stream.Reservation, limits []capacity.Limit) error {
	return s.moveDevice(ctx, id, epoch, device, reserved, limits, "1")
}

func (s *Store) moveDevice(ctx context.Context, id string, epoch uint64, device string, reserved []stream.Reservation, limits []capacity.Limit, force string) error {
	if limits == nil {
		limits = []capacity.Limit{} // each resource needs one
	}
	doc, bounds, args, err := reservations(device, reserved, limits)
	if err != nil {
		return fmt.Errorf("moving %s: %w", id, err)
	}
	if _, err := s.run(ctx, s.state, "placement_move", []string{key("placement", id)},
		append([]any{id, epoch, device, doc, bounds, force}, args...)...); err != nil {
		return fmt.Errorf("moving %s at epoch %d to %s: %w", id, epoch, device, err)
	}
	return nil
}

// Ledger returns what is reserved on a worker at one moment: resource → stream →
// amount. A resource without a reservation is missing.
func (s *Store) Ledger(ctx context.Context, worker string) (map[string]map[string]Held, error) {
	ledger, _, err := s.readLedger(ctx, worker)
	return ledger, err
}

// readLedger also returns the id of the feed's last entry at that moment, "" when
// the feed is empty.
func (s *Store) readLedger(ctx context.Context, worker string) (map[string]map[string]Held, string, error) {
	out, err := s.run(ctx, s.state, "ledger_read", []string{key("ledger-resources", worker), keyLedgerFeed}, worker)
	if err != nil {
		return nil, "", fmt.Errorf("reading the ledgers of worker %s: %w", worker, err)
	}
	ledger, bad := parseLedger(worker, out[1:])
	return ledger, out[0], bad
}

// parseLedger decodes resource, stream and value of each entry. Those that can't
// be read are left out, and err says which.
func parseLedger(worker string, v []string) (_ map[string]map[string]Held, err error) {
	ledger := map[string]map[string]Held{}
	for i := 0; i+2 < len(v); i += 3 {
		h, bad := parseHeld(v[i+2])
		if bad != nil {
			err = errors.Join(err, fmt.Errorf("the ledger of %s/%s, stream %s: %w", worker, v[i], v[i+1], bad))
			continue
		}
		if ledger[v[i]] == nil {
			ledger[v[i]] = map[string]Held{}
		}
		ledger[v[i]][v[i+1]] = h
	}
	return ledger, err
}

// parseHeld reads a ledger's value, "<amount> <ms>".
func parseHeld(v string) (Held, error) {
	a, at, ok := strings.Cut(v, " ")
	amount, err := strconv.ParseInt(a, 10, 64)
	ms, err2 := strconv.ParseInt(at, 10, 64)
	if !ok || err != nil || err2 != nil {
		return Held{}, fmt.Errorf("the entry %q is not an amount and a time", v)
	}
	return Held{Amount: amount, At: time.UnixMilli(ms).UTC()}, nil
}
