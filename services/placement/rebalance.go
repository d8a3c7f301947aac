package placement

import "time"

// Defaults of RebalancePolicy.
const (
	DefaultMargin  = 0.25
	DefaultMinStay = 5 * time.Minute
)

// RebalancePolicy bounds Rebalance. The zero value moves nothing.
type RebalancePolicy struct {
	// Moves is how many placements one call may move; 0 is off.
	Moves int
	// Margin is by how much a device must be better, as a share of its budget, 0
	// to 1.
	Margin float64
	// MinStay is how long a placement stays where it is at least.
	MinStay time.Duration
}
