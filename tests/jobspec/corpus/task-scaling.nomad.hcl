job "task-scaling" {
  group "app" {
    task "main" {
      driver = "docker"

      config {
        image = "alpine:3.20"
      }

      scaling "cpu" {
        enabled = true
        min     = 100
        max     = 1000
        policy {
          cooldown = "1m"
        }
      }
      scaling "mem" {
        max = 512
      }
    }
  }
}
