package stream

import (
	"fmt"
	"regexp"
	"strings"
	"time"
)

// RampHold is how long after a reservation the measurements may not show it yet:
// so long it counts on top of what is measured.
const RampHold = 15 * time.Second

// Reservation is an amount that a placement holds of one of its worker's
// resources. services/capacity names the resources and their units.
type Reservation struct {
	Resource string `json:"resource"`
	Amount   int64  `json:"amount"`
}

// Rule is a condition on where a stream is transcoded, key=value or key!=value.
// The key device takes cpu or gpu; every other key is a label of the worker
// (class, datacenter, …), and a worker without the label does not equal any value.
type Rule string

var ruleGrammar = regexp.MustCompile(`^([a-z0-9](?:[a-z0-9_.-]{0,61}[a-z0-9])?)(!?=)([A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)$`)

// DeviceKey is the rules' key for the kind of device.
const DeviceKey = "device"

// Parse splits a rule; equal is false for !=. Its error wraps ErrInvalid.
func (r Rule) Parse() (key, value string, equal bool, err error) {
	m := ruleGrammar.FindStringSubmatch(string(r))
	if m == nil {
		return "", "", false, fmt.Errorf("rule %s is not key=value or key!=value, such as device=gpu or datacenter=ams1: %w", clip(string(r)), ErrInvalid)
	}
	if m[1] == DeviceKey && m[3] != "cpu" && m[3] != "gpu" {
		return "", "", false, fmt.Errorf("rule %s: device is cpu or gpu: %w", clip(string(r)), ErrInvalid)
	}
	return m[1], m[3], m[2] == "=", nil
}

// CheckLabel checks a worker's label. Its error wraps ErrInvalid.
func CheckLabel(key, value string) error {
	if strings.Contains(key, "=") || key == DeviceKey {
		return fmt.Errorf("label %s: the name is taken or has an =: %w", clip(key), ErrInvalid)
	}
	if _, _, _, err := Rule(key + "=" + value).Parse(); err != nil {
		return fmt.Errorf("label %s: names are lower case letters, digits, - _ and .; values also capitals; 1 to 63 characters: %w", clip(key+"="+value), ErrInvalid)
	}
	return nil
}
