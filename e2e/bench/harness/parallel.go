package harness

import (
	"errors"
	"iter"
	"sync"
)

// Parallel calls f for every one of list, n at a time. Each of the n goes on after
// an error only as far as to take what is left.
func Parallel[T any](n int, list iter.Seq[T], f func(T) error) error {
	work := make(chan T)
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			for v := range work {
				if errs[i] == nil {
					errs[i] = f(v)
				}
			}
		})
	}
	for v := range list {
		work <- v
	}
	close(work)
	wg.Wait()
	return errors.Join(errs...)
}
