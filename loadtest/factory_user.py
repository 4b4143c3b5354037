"""Factories: they read their own products, some far more often than others, and in runs."""

from locust import between, task

from loadtest.load_user import PRODUCTS, LoadUser

# A pallet on a line, a truck at the gate.
_RUN_LENGTH = 10
_BATCH_SIZES = (20, 50, 100)


class FactoryUser(LoadUser):
    """A line of a factory, which asks for what passes by below one prefix."""

    weight = 6
    wait_time = between(0.02, 0.08)

    def on_start(self) -> None:
        """Take the prefix of one enterprise."""
        super().on_start()
        self.products = PRODUCTS[self.number % len(PRODUCTS)]

    @task(20)
    def read(self) -> None:
        """One product, as popular as products are."""
        number = self.products.popular(self.chooser)
        self.resolve(self.question(self.products, number), "factory: one product")

    @task(3)
    def scan(self) -> None:
        """Consecutive products, one after the other."""
        for number in self.products.run(self.chooser, _RUN_LENGTH):
            self.resolve(self.question(self.products, number), "factory: scan")

    @task(1)
    def batch(self) -> None:
        """Consecutive products in one request."""
        size = self.chooser.choice(_BATCH_SIZES)
        numbers = self.products.run(self.chooser, size)
        questions = [self.question(self.products, number) for number in numbers]
        self.resolve_many(questions, "factory: batch")
