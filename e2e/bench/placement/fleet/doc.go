// Package fleet simulates a day of a fleet of workers: streams start and stop,
// workers and cards are lost and return, and a policy says where each stream
// goes. It tells what came of it: which streams were refused, which were driven
// below real time, how full and how even the devices were.
//
// Time is simulated, and every draw comes from a seed: the same scenario and
// policy have the same result. docs/bench-placement.md says what is modelled.
package fleet
