package store

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"
)

// AcquireLease takes the named lease for ttl if it is free or already holder's;
// ok is false when somebody else has it. The token rises whenever the lease is
// taken anew: of two holders the one with the higher token is the later.
func (s *Store) AcquireLease(ctx context.Context, name, holder string, ttl time.Duration) (token uint64, ok bool, err error) {
	out, err := s.run(ctx, s.state, "lease_acquire", []string{key("lease", name), keyLeaseTokens}, name, holder, ttl.Milliseconds())
	if errors.Is(err, errHeld) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, fmt.Errorf("acquiring the lease %s: %w", name, err)
	}
	if token, err = strconv.ParseUint(out[0], 10, 64); err != nil {
		return 0, false, fmt.Errorf("acquiring the lease %s: token %q: %w", name, out[0], err)
	}
	return token, true, nil
}

// RenewLease extends holder's lease to ttl from now; false when it is lost.
func (s *Store) RenewLease(ctx context.Context, name, holder string, ttl time.Duration) (bool, error) {
	_, err := s.run(ctx, s.state, "lease_renew", []string{key("lease", name)}, holder, ttl.Milliseconds())
	if errors.Is(err, errHeld) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("renewing the lease %s: %w", name, err)
	}
	return true, nil
}

// ReleaseLease gives the lease back if holder has it.
func (s *Store) ReleaseLease(ctx context.Context, name, holder string) error {
	if _, err := s.run(ctx, s.state, "lease_release", []string{key("lease", name)}, holder); err != nil {
		return fmt.Errorf("releasing the lease %s: %w", name, err)
	}
	return nil
}
