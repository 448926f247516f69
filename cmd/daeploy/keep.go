package main

import (
	"time"

	"github.com/daeploy/daeploy"
	"github.com/daeploy/daeploy/buildpipeline"
)

// keepConfig says how much of an app's past stays. What is not set is as for all
// apps, where all is set; 0 sets no limit.
type keepConfig struct {
	Builds     *int      `toml:"builds"`
	Age        *duration `toml:"age"`
	Logs       *bytes    `toml:"logs"`
	Images     *int      `toml:"images"`
	ImageAge   *duration `toml:"image_age"`
	ImageBytes *bytes    `toml:"image_bytes"`
	CacheAge   *duration `toml:"cache_age"`
}

// keepOf sets all.
func keepOf(k buildpipeline.Keep) keepConfig {
	return keepConfig{
		Builds: &k.Builds, Age: (*duration)(&k.Age), Logs: (*bytes)(&k.LogBytes),
		Images: &k.Images, ImageAge: (*duration)(&k.ImageAge), ImageBytes: (*bytes)(&k.ImageBytes), CacheAge: (*duration)(&k.CacheAge),
	}
}

// over puts what is set in place of what k has.
func (c keepConfig) over(k buildpipeline.Keep) buildpipeline.Keep {
	set(&k.Builds, c.Builds)
	set(&k.Age, (*time.Duration)(c.Age))
	set(&k.LogBytes, (*int64)(c.Logs))
	set(&k.Images, c.Images)
	set(&k.ImageAge, (*time.Duration)(c.ImageAge))
	set(&k.ImageBytes, (*int64)(c.ImageBytes))
	set(&k.CacheAge, (*time.Duration)(c.CacheAge))
	return k
}

func set[T any](to, value *T) {
	if value != nil {
		*to = *value
	}
}

// keep gives the limits of all apps, and of those that have their own.
func (c *config) keep() (all buildpipeline.Keep, apps map[daeploy.AppName]buildpipeline.Keep) {
	all = c.Keep.over(buildpipeline.Keep{})
	apps = map[daeploy.AppName]buildpipeline.Keep{}
	for name, app := range c.Apps {
		apps[name] = app.Keep.over(all)
	}
	return all, apps
}

// checkKeep refuses numbers below zero; sizes have no sign.
func (c *config) checkKeep() error {
	if err := c.Keep.check("keep."); err != nil {
		return err
	}
	for name, app := range c.Apps {
		if err := app.Keep.check("apps." + string(name) + ".keep."); err != nil {
			return err
		}
	}
	return nil
}

func (c keepConfig) check(prefix string) error {
	for key, n := range map[string]*int{"builds": c.Builds, "images": c.Images} {
		if n != nil && *n < 0 {
			return badValue(prefix+key, "must not be below zero; 0 sets no limit")
		}
	}
	for key, d := range map[string]*duration{"age": c.Age, "image_age": c.ImageAge, "cache_age": c.CacheAge} {
		if d != nil && *d < 0 {
			return badValue(prefix+key, "must not be below zero; 0 sets no limit")
		}
	}
	return nil
}
