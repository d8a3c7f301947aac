package api

import (
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"strings"
)

// maxBody limits a request's body, in bytes.
const maxBody = 1 << 20

// decode reads a JSON body into v: exactly one value, no unknown field.
func decode(r *http.Request, v any) error { return decodeBody(r, v, true) }

// decodeTolerant is decode for the internal routes: a newer role may send
// fields that this api does not know yet.
func decodeTolerant(r *http.Request, v any) error { return decodeBody(r, v, false) }

func decodeBody(r *http.Request, v any, strict bool) error {
	if err := checkJSON(r); err != nil {
		return err
	}
	d := json.NewDecoder(r.Body)
	if strict {
		d.DisallowUnknownFields()
	}
	if err := d.Decode(v); err != nil {
		return decodeError(err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			return err
		}
		return badRequest("The body has more than one JSON value.")
	}
	return nil
}

func checkJSON(r *http.Request) error {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	known := kind == "application/json" || (kind == "application/merge-patch+json" && r.Method == http.MethodPatch)
	if err != nil || !known || r.Header.Get("Content-Encoding") != "" {
		return newProblem(http.StatusUnsupportedMediaType, "unsupported-media-type", "The body must be JSON",
			"Send Content-Type: application/json, not compressed.").header("Accept", "application/json")
	}
	return nil
}

// decodeError says what is wrong with a body in the client's words.
func decodeError(err error) error {
	var (
		syntax   *json.SyntaxError
		mismatch *json.UnmarshalTypeError
		tooLarge *http.MaxBytesError
	)
	switch {
	case errors.As(err, &tooLarge):
		return err
	case errors.Is(err, io.EOF):
		return badRequest("The body is empty; it must be a JSON object.")
	case errors.Is(err, io.ErrUnexpectedEOF):
		return badRequest("The body ends in the middle of a JSON value.")
	case errors.As(err, &syntax):
		return badRequest("The body is not JSON: error at byte %d.", syntax.Offset)
	case errors.As(err, &mismatch):
		if mismatch.Field == "" {
			return badRequest("The body must be a JSON object, not %s.", mismatch.Value)
		}
		return badRequest("A field has the wrong type.").
			field(clip(mismatch.Field), "must be %s, not %s", jsonKind(mismatch), clip(mismatch.Value))
	}
	if name, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
		name = strings.Trim(name, `"`)
		return badRequest("The body has a field that is not known here.").field(clip(name), "unknown field")
	}
	return badRequest("The body can't be read as JSON of the expected form.")
}

func jsonKind(e *json.UnmarshalTypeError) string {
	if e.Type == nil {
		return "another type"
	}
	switch kind := e.Type.Kind().String(); kind {
	case "string", "struct", "slice", "map", "bool":
		return map[string]string{"string": "a string", "struct": "an object", "slice": "an array",
			"map": "an object", "bool": "true or false"}[kind]
	case "float64", "float32":
		return "a number"
	case "uint64", "uint32", "uint16", "uint8", "uint":
		return "a whole number of at least 0"
	default:
		return "a whole number"
	}
}

// clip bounds what is echoed to a client.
func clip(s string) string {
	const most = 100
	if r := []rune(s); len(r) > most {
		return string(r[:most]) + "…"
	}
	return s
}
