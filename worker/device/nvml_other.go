//go:build !linux || !cgo

package device

import "fmt"

// newDriver finds no GPU: NVIDIA's library can be loaded on Linux and with cgo only.
func newDriver(string) driver { return noNVML{} }

type noNVML struct{}

func (noNVML) open() (string, error) {
	return "", fmt.Errorf("%w: this program was built without cgo, or not for Linux, and can't load it", errNoLibrary)
}
func (noNVML) close()                 {}
func (noNVML) count() (int, error)    { return 0, errNoLibrary }
func (noNVML) card(int) (card, error) { return card{}, errGone }
