package client

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/dionysia-dev/dionysia/services/api/wire"
)

// pageSize is the most that the api lists at once.
const pageSize = 200

// APIError is an answer of the api that is not a success.
type APIError struct {
	Status  int
	Problem wire.Problem
}

func (e *APIError) Error() string {
	text := e.Problem.Detail
	if text == "" || len(e.Problem.Errors) > 0 {
		text = e.Problem.Title
	}
	for i, f := range e.Problem.Errors {
		text += map[bool]string{true: ": ", false: "; "}[i == 0] + f.Field + " " + f.Message
	}
	return strings.TrimSuffix(text, ".")
}

// reply is what any request of the generated client returns.
type reply interface {
	StatusCode() int
	Status() string
	GetBody() []byte
}

// success returns an *APIError for a reply that is not one.
func success(res reply, err error) error {
	if err != nil {
		return err
	}
	if code := res.StatusCode(); code >= 200 && code < 300 {
		return nil
	}
	e := &APIError{Status: res.StatusCode()}
	if json.Unmarshal(res.GetBody(), &e.Problem) != nil || e.Problem.Title == "" {
		e.Problem.Title = "the api answered " + res.Status()
	}
	return e
}

// answer is success with the body decoded.
func answer[T any](res reply, err error) (*T, error) {
	if err := success(res, err); err != nil {
		return nil, err
	}
	v := new(T)
	if err := json.Unmarshal(res.GetBody(), v); err != nil {
		return nil, fmt.Errorf("reading the api's answer: %w", err)
	}
	return v, nil
}

// page is a part of any list.
type page[T any] struct {
	Items []T     `json:"items"`
	Next  *string `json:"next"`
}

// every walks all pages of a list.
func every[T any](fetch func(limit *int, after *string) (reply, error)) ([]T, error) {
	all, limit := []T{}, pageSize
	var after *string
	for {
		p, err := answer[page[T]](fetch(&limit, after))
		if err != nil {
			return nil, err
		}
		all = append(all, p.Items...)
		if p.Next == nil {
			return all, nil
		}
		after = p.Next
	}
}

// list is a command that prints all of a list.
func list[T any](ctx *Context, flags *Flags, fetch func(c *session, limit *int, after *string) (reply, error), rows func(t *table, all []T)) error {
	c, err := flags.connect(ctx)
	if err != nil {
		return err
	}
	all, err := every[T](func(limit *int, after *string) (reply, error) { return fetch(c, limit, after) })
	if err != nil {
		return err
	}
	return c.print(all, func(t *table) { rows(t, all) })
}
