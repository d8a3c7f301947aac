package roles

import (
	"fmt"
	"time"

	"github.com/dionysia-dev/dionysia/services/controller"
	"github.com/dionysia-dev/dionysia/services/placement"
)

// PlacingFlags say how streams are placed on workers; see DefaultPlacing.
type PlacingFlags struct {
	Policy         string        `name:"placement-policy" help:"spread gives each stream to the emptiest device, so that one that fails takes few along; pack fills the fullest, which keeps whole devices free for large ladders." enum:"spread,pack" default:"spread" env:"DIONYSIA_PLACEMENT_POLICY"`
	Reserve        float64       `name:"failover-reserve" help:"Share of each device, 0 to 0.5, that only streams which lost their worker may use. It counts while there are two workers or more that take streams." default:"0.1" env:"DIONYSIA_FAILOVER_RESERVE"`
	Queue          int           `name:"queue-limit" help:"How many streams the queue for capacity holds, at least 1. Those beyond it, of the lowest priority the last to come, wait outside it: their status names the limit, and they take a place when one is free." default:"1000" env:"DIONYSIA_QUEUE_LIMIT"`
	Preempt        bool          `name:"preempt" help:"A stream that finds no room takes it from streams of lower priority, which then wait. Off unless given." env:"DIONYSIA_PREEMPT"`
	DrainMoves     int           `name:"drain-moves" help:"How many streams are on their way from workers that operators drain at a time, 1 to 100. Those of a worker that stops leave at once." default:"2" env:"DIONYSIA_DRAIN_MOVES"`
	Rebalance      int           `name:"rebalance" help:"How many streams a minute may move to a device that is clearly better, such as a GPU that has returned; 0 to 600, 0 for none. A move is a discontinuity for its viewers." default:"0" env:"DIONYSIA_REBALANCE"`
	RebalanceAfter time.Duration `name:"rebalance-after" help:"How long a stream stays where it was placed before --rebalance may move it, at least 1s." default:"5m" env:"DIONYSIA_REBALANCE_AFTER"`
}

// DefaultPlacing are the flags' defaults.
func DefaultPlacing() PlacingFlags {
	return PlacingFlags{Policy: "spread", Reserve: placement.DefaultPolicy().Reserve, Queue: placement.DefaultQueueLimit, DrainMoves: controller.DefaultDrainMoves, RebalanceAfter: placement.DefaultMinStay}
}

// maxRebalance bounds --rebalance: ten a second is more than one leader would do.
const maxRebalance = 600

// maxDrainMoves bounds --drain-moves: more is like losing the worker.
const maxDrainMoves = 100

// Placement is the policy that the flags ask for.
func (f PlacingFlags) Placement() placement.Policy {
	p := placement.DefaultPolicy()
	p.Pack, p.Reserve, p.Rebalance.MinStay = f.Policy == "pack", f.Reserve, f.RebalanceAfter
	return p
}

func (f PlacingFlags) config() (controller.Config, error) {
	switch {
	case f.Policy != "spread" && f.Policy != "pack":
		return controller.Config{}, fmt.Errorf("--placement-policy %q: it is spread or pack", f.Policy)
	case !(f.Reserve >= 0 && f.Reserve <= placement.MaxReserve):
		return controller.Config{}, fmt.Errorf("--failover-reserve %v: it is 0 to %v", f.Reserve, placement.MaxReserve)
	case f.Queue < 1:
		return controller.Config{}, fmt.Errorf("--queue-limit %d: it is 1 or more", f.Queue)
	case f.DrainMoves < 1 || f.DrainMoves > maxDrainMoves:
		return controller.Config{}, fmt.Errorf("--drain-moves %d: it is 1 to %d", f.DrainMoves, maxDrainMoves)
	case f.RebalanceAfter < time.Second:
		return controller.Config{}, fmt.Errorf("--rebalance-after %v: it is 1s or more", f.RebalanceAfter)
	case f.Rebalance < 0 || f.Rebalance > maxRebalance:
		return controller.Config{}, fmt.Errorf("--rebalance %d: it is 0 to %d", f.Rebalance, maxRebalance)
	}
	return controller.Config{Policy: f.Placement(), QueueLimit: f.Queue, Preempt: f.Preempt, DrainMoves: f.DrainMoves, Rebalance: f.Rebalance}, nil
}
