package store

import (
	"context"
	"fmt"

	"github.com/dionysia-dev/dionysia/services/capacity"
)

// RepairLedger makes a worker's ledgers hold exactly what its placements that
// have not ended have reserved, and says what it changed, a sentence for each
// reservation: one that no placement has is returned; one that a placement lacks
// is made again, above the limit too, because the placement runs. Nothing is to
// be repaired unless Redis lost or was made to hold something by hand.
//
// It disturbs nothing that is under way: whatever changes a ledger changes the
// placement in the same script.
func (s *Store) RepairLedger(ctx context.Context, worker string) (changed []string, err error) {
	out, err := s.run(ctx, s.state, "ledger_repair",
		[]string{key("ledger-resources", worker), preWorkerStreams + worker, keyActive, keyLedgerWorkers}, worker)
	if err != nil {
		return nil, fmt.Errorf("repairing the ledgers of worker %s: %w", worker, err)
	}
	for i := 0; i+3 < len(out); i += 4 {
		resource, id, before, now := out[i], out[i+1], out[i+2], out[i+3]
		unit := capacity.Unit(resource)
		switch {
		case before == "-1":
			changed = append(changed, fmt.Sprintf("%s/%s: the entry of %s could not be read; it holds %s %s now", worker, resource, id, now, unit))
		case now == "0":
			changed = append(changed, fmt.Sprintf("%s/%s: %s %s returned that %s held without a placement", worker, resource, before, unit, id))
		default:
			changed = append(changed, fmt.Sprintf("%s/%s: %s, placed here, held %s %s and has its %s again", worker, resource, id, before, unit, now))
		}
	}
	return changed, nil
}
