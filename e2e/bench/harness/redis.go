package harness

import (
	"context"
	"fmt"

	"github.com/redis/go-redis/v9"

	"github.com/dionysia-dev/dionysia/internal/testkit"
)

// SetRedis changes a server's configuration.
func SetRedis(ctx context.Context, r *testkit.Redis, name, value string) error {
	c := redis.NewClient(&redis.Options{Addr: r.Addr, Password: r.Password})
	defer func() { _ = c.Close() }()
	if err := c.ConfigSet(ctx, name, value).Err(); err != nil {
		return fmt.Errorf("setting %s of Redis to %s: %w", name, value, err)
	}
	return nil
}
