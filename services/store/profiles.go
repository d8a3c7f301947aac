package store

import (
	"context"
	"encoding/json"
	"fmt"
	"sort"
	"strconv"

	"github.com/redis/go-redis/v9"

	"github.com/dionysia-dev/dionysia/services/stream"
)

// PutProfile creates a profile (Version 0) or replaces the version that was
// read, and returns it with its new version. Errors: ErrInvalid, ErrConflict;
// ErrExists for the name of a built-in one.
func (s *Store) PutProfile(ctx context.Context, p stream.Profile) (stream.Profile, error) {
	if err := p.Validate(); err != nil {
		return p, err
	}
	if _, ok := stream.Builtin(p.Name); ok {
		return p, fmt.Errorf("profile %s is built in: %w", p.Name, stream.ErrExists)
	}
	read := p.Version
	p.Version, p.BuiltIn = read+1, false
	b, err := json.Marshal(p)
	if err != nil {
		return p, fmt.Errorf("encoding profile %s: %w", p.Name, err)
	}
	out, err := s.run(ctx, s.state, "profile_put", []string{key("profile", p.Name), keyProfiles}, p.Name, read, b)
	if err != nil {
		return p, fmt.Errorf("writing profile %s: %w", p.Name, err)
	}
	p.Version, _ = strconv.ParseInt(out[0], 10, 64)
	return p, nil
}

// GetProfile returns a built-in or stored profile, or ErrNotFound.
func (s *Store) GetProfile(ctx context.Context, name string) (stream.Profile, error) {
	if p, ok := stream.Builtin(name); ok {
		return p, nil
	}
	v, err := s.state.HMGet(ctx, key("profile", name), "json", "version").Result()
	if err != nil {
		return stream.Profile{}, missing(err, "profile", name)
	}
	return decodeProfile(name, v)
}

func decodeProfile(name string, v []any) (stream.Profile, error) {
	var p stream.Profile
	raw, ok := v[0].(string)
	if !ok {
		return p, missing(redis.Nil, "profile", name)
	}
	if err := json.Unmarshal([]byte(raw), &p); err != nil {
		return p, fmt.Errorf("decoding profile %s: %w", name, err)
	}
	version, _ := v[1].(string)
	p.Version, _ = strconv.ParseInt(version, 10, 64)
	return p, nil
}

// ListProfiles returns the built-in and the stored profiles, by name.
func (s *Store) ListProfiles(ctx context.Context) ([]stream.Profile, error) {
	names, err := s.state.ZRange(ctx, keyProfiles, 0, -1).Result()
	if err != nil {
		return nil, fmt.Errorf("listing profiles: %w", err)
	}
	list := stream.Builtins()
	for _, name := range names {
		v, err := s.state.HMGet(ctx, key("profile", name), "json", "version").Result()
		if err != nil {
			return nil, fmt.Errorf("reading profile %s: %w", name, err)
		}
		if v[0] == nil {
			continue // deleted between the two
		}
		p, err := decodeProfile(name, v)
		if err != nil {
			return nil, err
		}
		list = append(list, p)
	}
	sort.Slice(list, func(i, j int) bool { return list[i].Name < list[j].Name })
	return list, nil
}

// DeleteProfile deletes a stored profile. Errors: ErrNotFound; ErrInUse while
// streams refer to it, and for a built-in one.
func (s *Store) DeleteProfile(ctx context.Context, name string) error {
	if _, ok := stream.Builtin(name); ok {
		return fmt.Errorf("profile %s is built in: %w", name, stream.ErrInUse)
	}
	if _, err := s.run(ctx, s.state, "profile_delete",
		[]string{key("profile", name), keyProfiles, preProfileStream + name}, name); err != nil {
		return fmt.Errorf("deleting profile %s: %w", name, err)
	}
	return nil
}
