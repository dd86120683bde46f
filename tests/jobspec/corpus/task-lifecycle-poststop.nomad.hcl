job "task-lifecycle-poststop" {
  group "app" {
    task "main" {
      driver = "docker"

      config {
        image = "alpine:3.20"
      }

      lifecycle {
        hook = "poststop"
      }
    }
  }
}
