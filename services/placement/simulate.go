package placement

import (
	"fmt"

	"github.com/dionysia-dev/dionysia/services/stream"
)

// MaxSimulate bounds the count of Simulate.
const MaxSimulate = 10_000

// Simulate decides for a number of streams like r, one after the other, as if
// each had been committed; s stays as it is. When one finds no room it returns
// the decisions so far and the *NoRoomError. A count that is not 1 to
// MaxSimulate is stream.ErrInvalid.
func Simulate(s *Snapshot, r Request, count int) ([]Decision, error) {
	if count < 1 || count > MaxSimulate {
		return nil, fmt.Errorf("count %d: must be 1 to %d: %w", count, MaxSimulate, stream.ErrInvalid)
	}
	c := s.Clone()
	base := r.Stream
	r.Own = Own{}
	list := make([]Decision, 0, count)
	for i := range count {
		r.Stream = fmt.Sprintf("%s-%d", base, i+1)
		d, err := Decide(c, r)
		if err != nil {
			return list, err
		}
		c.Apply(d)
		list = append(list, d)
	}
	return list, nil
}
